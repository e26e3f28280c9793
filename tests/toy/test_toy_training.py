import json
import runpy
from pathlib import Path

import pytest
import torch

from keystep.models.toy.build import build_transformer
from keystep.models.toy.train.decoder_task import DecoderTask
from keystep.models.toy.train.denoiser_task import DenoiserTask
from keystep.models.toy.train.loop import Settings, Trainer, learning_rate_share
from keystep.models.toy.train.muon import orthogonalise

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_toy.py"


def test_orthogonalise_brings_singular_values_near_one():
    matrices = torch.randn(3, 24, 48, generator=torch.Generator().manual_seed(0))
    for stack in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalise(stack))
        assert values.min() > 0.6 and values.max() < 1.3


def test_learning_rate_holds_then_falls():
    assert [learning_rate_share(progress, 0.4) for progress in (0.0, 0.4)] == [1.0, 1.0]
    assert learning_rate_share(0.7, 0.4) == pytest.approx(0.505)
    assert learning_rate_share(1.2, 0.4) == pytest.approx(0.01)


def test_untrained_transformer_predicts_zero():
    transformer = build_transformer(num_layers=1)
    out = transformer(torch.randn(1, 9, 16, 16, 16), torch.tensor([500.0]), torch.zeros(1, 8, 64)).sample
    assert out.abs().max() == 0


@pytest.mark.parametrize("task", [DecoderTask(compiled=False), DenoiserTask(2, num_layers=1, compiled=False)])
def test_loss_is_a_function_of_the_generator_and_falls(task, tmp_path):
    draws = [float(task.loss(torch.Generator().manual_seed(3)).detach()) for _ in range(2)]
    assert draws[0] == draws[1]
    trainer = Trainer(task, Settings(1.0, tmp_path, dtype=torch.float32))
    for _ in range(8):
        trainer._update(progress=0.0)
    assert float(task.loss(torch.Generator().manual_seed(3)).detach()) < draws[0]


def test_training_resumes_where_it_stopped(tmp_path):
    settings = Settings(0.02, tmp_path, dtype=torch.float32, checkpoint_minutes=0.001)
    first = Trainer(DecoderTask(compiled=False), settings)
    first.run()
    again = Trainer(DecoderTask(compiled=False), settings)
    assert (again.step, again.elapsed_s) == (first.step, first.elapsed_s)
    again.run()
    assert again.step == first.step  # the budget is used up
    for name, value in first.average.items():
        assert torch.equal(value, again.average[name])
    longer = Trainer(DecoderTask(compiled=False), Settings(0.04, tmp_path, dtype=torch.float32))
    longer.run()
    assert longer.step > first.step


def test_script_trains_evaluates_and_exports(tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    options = [
        "--minutes",
        "0.05",
        "--precision",
        "fp32",
        "--no-compile",
        "--eval-prompts",
        "3",
        "--eval-steps",
        "2",
    ]
    main([*options, "--out", str(tmp_path)])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["num_prompts"] == 3
    assert set(result["accuracy"]) == {"colour", "shape", "motion", "background", "all"}
    assert (tmp_path / "weights" / "transformer" / "diffusion_pytorch_model.safetensors").exists()
    assert json.loads(capsys.readouterr().out) == result

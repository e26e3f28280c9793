// Puts one group of videos on the page, with its timelines and curves, and wires the controls.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
let player = null;

function toBlobUrl(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
}

function describeClip(clip) {
  if (!clip.quality) return "the reference";
  const parts = [formatPsnr(clip.quality.psnr) + (Number.isFinite(clip.quality.psnr) ? "" : " to plain")];
  if (clip.trace) parts.push(`${clip.trace.key_steps.length}/${clip.trace.num_evaluations} key steps`);
  if (clip.compute !== null) parts.push(`${Math.round(clip.compute * 100)} % of the compute`);
  return parts.join(" · ");
}

function showClip(clip, index) {
  const figure = element("figure", { style: colour(index) });
  const video = figure.appendChild(element("video", { muted: "", playsinline: "", preload: "auto" }));
  video.muted = true; // the attribute alone does not mute a video made by a script
  video.setAttribute("aria-label", `Video of ${clip.label}`);
  video.src = toBlobUrl(clip.mp4);
  const caption = figure.appendChild(element("figcaption"));
  caption.append(element("h3", {}, clip.label), element("small", {}, describeClip(clip)));
  at("videos").append(figure);
  return video;
}

function showGroup(number) {
  const group = data.groups[number];
  const shouldPlay = player ? player.isPlaying : !matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (player) player.close();
  for (const id of ["videos", "timelines", "psnr"]) at(id).replaceChildren();
  at("prompt").textContent = `${group.prompt} (seed ${group.seed})`;
  const videos = group.clips.map((clip, index) => (clip.mp4 ? showClip(clip, index) : null)).filter(Boolean);
  group.clips.forEach((clip, index) => { if (clip.trace) drawTimeline(at("timelines"), clip, index); });
  const markFrame = drawPsnr(at("psnr"), group.clips, (frame) => { player?.show(frame); showState(); });
  at("bar").hidden = !videos.length;
  if (!videos.length) { player = null; return; }
  player = new Player(videos, data.fps, (frame) => {
    at("scrub").max = player.numFrames - 1;
    at("scrub").value = frame;
    at("frame").textContent = `frame ${frame + 1} of ${player.numFrames}`;
    markFrame(frame);
  });
  player.setRate(Number(at("rate").value));
  if (shouldPlay) player.play();
  showState();
}

function showState() { at("play").textContent = player?.isPlaying ? "Pause" : "Play"; }

function toggle() {
  if (player.isPlaying) player.pause(); else player.play();
  showState();
}

function step(numFrames) {
  player.show(player.frame + numFrames);
  showState();
}

if (data.groups.length) {
  at("play").addEventListener("click", toggle);
  at("scrub").addEventListener("input", () => { player.show(Number(at("scrub").value)); showState(); });
  at("rate").addEventListener("change", () => player.setRate(Number(at("rate").value)));
  at("group").addEventListener("change", () => showGroup(Number(at("group").value)));
  document.addEventListener("keydown", (event) => {
    const isControl = event.target.closest("input, select, button, summary, [role=slider], [role=region]");
    if (!player || isControl || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = { " ": toggle, ArrowLeft: () => step(-1), ArrowRight: () => step(1) };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  });
  showGroup(0);
}

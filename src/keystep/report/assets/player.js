// Plays several videos as one: a leader keeps the time, the others follow it, all loop together.
class Player {
  constructor(videos, fps, onFrame) {
    this.videos = videos;
    this.fps = fps;
    this.onFrame = onFrame; // called with the 0-based frame that is shown
    this.isPlaying = false;
    this.isClosed = false;
    this.isRewinding = false;
    const tick = () => {
      if (this.isClosed) return;
      this.follow();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  get leader() { return this.videos[0]; }

  get numFrames() { return Math.max(1, Math.round(this.leader.duration * this.fps)); }

  get frame() { return Math.min(this.numFrames - 1, Math.floor(this.leader.currentTime * this.fps + 1e-3)); }

  follow() {
    if (this.isPlaying && !this.isRewinding) {
      if (this.leader.ended) this.rewind();
      const tolerance = 0.75 / this.fps; // seconds; a seek costs more than a smaller gap shows
      for (const video of this.videos.slice(1)) {
        const gap = Math.abs(video.currentTime - this.leader.currentTime);
        if (gap > tolerance && !video.seeking && !this.isRewinding) video.currentTime = this.leader.currentTime;
      }
    }
    if (Number.isFinite(this.leader.duration)) this.onFrame(this.frame);
  }

  // Every loop starts with all videos at zero, so no drift survives it.
  async rewind() {
    this.isRewinding = true;
    await this.seekAll(0);
    this.isRewinding = false;
    if (this.isPlaying) this.startAll();
  }

  seekAll(time) {
    return Promise.all(this.videos.map((video) => new Promise((done) => {
      video.addEventListener("seeked", done, { once: true });
      video.currentTime = time;
    })));
  }

  startAll() {
    for (const video of this.videos) video.play().catch(() => { this.isPlaying = false; });
  }

  play() {
    this.isPlaying = true;
    if (this.leader.ended) this.rewind(); else this.startAll();
  }

  pause() {
    this.isPlaying = false;
    for (const video of this.videos) video.pause();
    this.seekAll(this.leader.currentTime);
  }

  show(frame) {
    this.pause();
    this.seekAll((Math.max(0, Math.min(this.numFrames - 1, frame)) + 0.5) / this.fps);
  }

  setRate(rate) { for (const video of this.videos) video.playbackRate = rate; }

  close() {
    this.isClosed = true;
    for (const video of this.videos) {
      video.pause();
      URL.revokeObjectURL(video.src);
    }
  }
}

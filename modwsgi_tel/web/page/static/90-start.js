// The start: what the browser keeps of the last visit, the address, the first poll.

theme = THEMES.includes(stored("theme")) ? stored("theme") : "auto";
document.documentElement.dataset.theme = theme;
refresh = REFRESHES.includes(Number(stored("refresh"))) ? Number(stored("refresh")) : 1;
state = parsed(location.hash);
document.getElementById("skip").onclick = () => document.getElementById("main").focus();
addEventListener("hashchange", followed);
addEventListener("popstate", followed);
addEventListener("keydown", pressed);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    if (polling) polling.abort();
    polling = null;
  } else if (!paused) {
    pollNow();
  }
});
redraw();
pollNow();

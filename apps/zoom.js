// All panes are magnified together: the wheel says how much, the pointer where.
(() => {
  const style = document.documentElement.style;
  let zoom = 1;
  const set = (value) => {
    zoom = Math.min(32, Math.max(1, value));
    style.setProperty("--zoom", zoom);
  };
  window.setZoom = set;
  const over = (event) => event.target.closest && event.target.closest(".pane");
  document.addEventListener("wheel", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    set(zoom * (event.deltaY < 0 ? 1.25 : 0.8));
  }, { passive: false });
  document.addEventListener("mousemove", (event) => {
    const pane = over(event);
    if (!pane) return;
    const box = pane.getBoundingClientRect();
    style.setProperty("--zoom-x", `${(100 * (event.clientX - box.left)) / box.width}%`);
    style.setProperty("--zoom-y", `${(100 * (event.clientY - box.top)) / box.height}%`);
  });
})();

// Loaded before the first paint, so that a chosen theme does not flash in the other one.
const chosen = (() => {
  try {
    return localStorage.getItem("gust-theme");
  } catch {
    return null;
  }
})();
if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;

(function () {
  "use strict";
  const root = document.documentElement, button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  function kept(value) {
    try {
      if (value) localStorage.setItem("ramify-theme", value);
      return localStorage.getItem("ramify-theme");
    } catch (error) {
      return value;
    }
  }
  function choose(theme) {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    button.textContent = "theme: " + theme;
  }
  let chosen = themes.includes(kept()) ? kept() : "auto";
  button.hidden = false;
  button.addEventListener("click", function () {
    chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
    kept(chosen);
    choose(chosen);
  });
  choose(chosen);
})();

// Draws every panel for the choices of its section, in the page's theme.
(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const DASHES = { solid: "none", dash: "8 4", longdash: "14 5", dashdot: "8 3 2 3", dot: "2.5 3" };
  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtons: [["toImage"]],
    toImageButtonOptions: { format: "svg" },
  };

  // plotly's legend cannot wrap beside an axis title; this one is text in the flow of the page.
  function legend(figure, list) {
    const named = figure.data.filter((trace) => trace.name && trace.showlegend !== false);
    list.replaceChildren(...(named.length < 2 ? [] : named).map((trace) => {
      const item = document.createElement("li");
      const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
      line.setAttribute("d", "M0 5H34");
      line.setAttribute("stroke", trace.line.color);
      line.setAttribute("stroke-width", "2.4");
      line.setAttribute("stroke-dasharray", DASHES[trace.line.dash]);
      swatch.append(line);
      const words = new DOMParser().parseFromString(trace.name, "text/html").body.textContent;
      item.append(swatch, words);
      return item;
    }));
  }

  function draw(place) {
    const section = place.closest("section");
    const keys = place.dataset.keys ? place.dataset.keys.split(" ") : [];
    const values = keys.map((key) => section.querySelector(`select[data-choice="${key}"]`).value);
    const figure = data.panels[place.id][values.join("|")];
    const [list, missing] = place.parentElement.querySelectorAll(".legend, .missing");
    place.hidden = list.hidden = !figure;
    missing.hidden = Boolean(figure);
    if (!figure) return;
    legend(figure, list);
    const layout = {
      ...figure.layout,
      template: data.templates[dark.matches ? "dark" : "light"],
      height: Number(place.dataset.height),
      showlegend: false,
    };
    Plotly.react(place, figure.data, layout, config);
  }

  const places = Array.from(document.querySelectorAll(".panel"));
  document.querySelectorAll("select[data-choice]").forEach((select) => {
    select.addEventListener("change", () => {
      places.filter((place) => place.closest("section") === select.closest("section")).forEach(draw);
    });
  });
  const drawAll = () => places.forEach(draw);
  dark.addEventListener("change", drawAll);
  drawAll();
  document.documentElement.dataset.drawn = "1";
})();

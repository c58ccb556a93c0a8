// Colours the tokens of every `.ep-tokens` on the page for the chosen reader, layer and emotion.
(function () {
  "use strict";
  const MISSING = -128;

  function unpack(text) {
    const raw = atob(text);
    const bytes = new Int8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  }

  function signed(value) {
    return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  }

  function start(root) {
    root.dataset.ready = "1";
    const data = JSON.parse(root.querySelector(".ep-data").textContent);
    const z = data.z.map(unpack);
    const tokens = Array.from(root.querySelectorAll(".ep-t"));
    const means = Array.from(root.querySelectorAll(".ep-mean"));
    const tip = root.querySelector(".ep-tip");
    let shown = null;

    const chosen = (key) => Number(root.querySelector(`select[data-key="${key}"]`).value);
    const reader = () => Number(root.querySelector(".ep-readers input:checked").value);
    function at(r, i) {
      const value = z[r][(chosen("layer") * data.emotions.length + chosen("emotion")) * data.n + i];
      return value === MISSING ? null : value * data.step;
    }

    function paint() {
      const r = reader();
      const limit = data.limits[chosen("emotion")];
      root.querySelectorAll(".ep-legend b").forEach((end) => { end.textContent = String(limit); });
      tokens.forEach((span, i) => {
        const value = at(r, i);
        const alpha = value === null ? 0 : Math.min(Math.abs(value) / limit, 1) * data.maxTint;
        span.style.background =
          alpha < 0.005 ? "" : `rgb(var(--ep-${value > 0 ? "hot" : "cold"}) / ${alpha.toFixed(2)})`;
      });
      means.forEach((place) => {
        let sum = 0, count = 0;
        for (let i = Number(place.dataset.from); i < Number(place.dataset.to); i++) {
          const value = data.kind[i] === "content" ? at(r, i) : null;
          if (value !== null) { sum += value; count += 1; }
        }
        place.textContent = count ? `mean z of tokens ${signed(sum / count)}` : "";
      });
      if (shown) tell(shown);
    }

    function tell(span) {
      const i = Number(span.dataset.i);
      const lines = data.readers.map((name, r) => {
        const value = at(r, i);
        return `${name}: ${value === null ? "not read here" : "z " + signed(value)}`;
      });
      const where = `${data.emotions[chosen("emotion")]}, layer ${data.layers[chosen("layer")]}`;
      const what = data.kind[i] === "content" ? "" : at(reader(), i) === null
        ? ` (${data.kind[i]})` : " (just before the reply)";
      tip.textContent = `${where}${what}\n${lines.join("\n")}`;
      tip.hidden = false;
      const box = span.getClientRects()[0] || span.getBoundingClientRect();
      const frame = root.getBoundingClientRect();
      const left = Math.min(box.left - frame.left, frame.width - tip.offsetWidth - 4);
      tip.style.left = `${Math.max(0, left)}px`;
      const room = box.bottom + tip.offsetHeight + 10 < window.innerHeight;
      tip.style.top = `${room ? box.bottom - frame.top + 6 : box.top - frame.top - tip.offsetHeight - 6}px`;
      if (shown !== span) {
        if (shown) shown.classList.remove("ep-on");
        span.classList.add("ep-on");
        shown = span;
      }
    }

    function hush() {
      if (shown) shown.classList.remove("ep-on");
      shown = null;
      tip.hidden = true;
    }

    root.addEventListener("pointerover", (event) => {
      const span = event.target.closest(".ep-t");
      if (span) tell(span); else hush();
    });
    root.addEventListener("pointerleave", hush);
    root.addEventListener("change", paint);
    paint();
  }

  document.querySelectorAll(".ep-tokens:not([data-ready])").forEach(start);
})();

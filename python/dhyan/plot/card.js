// Steps through the decoding of every card that is not yet alive: by slider, pointer, focus and arrow keys.
// It reads the weights from the card's attribute and words from the page, and writes text only.
(() => {
  "use strict";

  // Weights come in thousandths; rounded as the table has them.
  const two = (weight) => (weight < 5 ? "0" : (weight / 1000).toFixed(weight < 995 ? 2 : 1).replace(/^0/, ""));
  const percent = (weight) => `${Math.round(100 * (weight / 1000).toFixed(2))}\u00a0%`;
  const level = (weight) => Math.round(Math.min(Math.max(weight / 100, 0), 10));

  function begin(card) {
    const player = card.querySelector(".player");
    if (!player) return;
    const weights = card.dataset.weights
      .split(";")
      .map((row) => new Map(row.split(",").filter(Boolean).map((item) => item.split(":").map(Number))));
    const slider = player.querySelector("input");
    const outputs = [...player.querySelectorAll(".outputs button")];
    const sources = [...player.querySelectorAll(".sources li")];
    const words = sources.map((item) => item.querySelector(".token").textContent);
    const rows = card.querySelectorAll("tbody tr");
    const reads = weights.map((row) =>
      [...row].filter(([, w]) => w >= 10).sort((a, b) => b[1] - a[1] || a[0] - b[0]));

    const told = (t) =>
      reads[t].length
        ? `${outputs[t].textContent} reads ` + reads[t].slice(0, 3).map(([s, w]) => `${words[s]} ${percent(w)}`).join(", ")
        : `${outputs[t].textContent} reads nothing`;

    function shade(element, weight) {
      element.className = element.className.replace(/\bw\d+\b/g, "").trim();
      if (weight !== null) element.classList.add(`w${level(weight)}`);
    }

    // Words stand in elements of their own, with the language of their list, which decides the font.
    function write(paragraph, parts) {
      paragraph.replaceChildren(...parts.map(([text, list]) => {
        if (!list) return text;
        const span = document.createElement("bdi");
        span.lang = list.lang;
        span.textContent = text;
        return span;
      }));
    }

    function show(t) {
      slider.value = t + 1;
      slider.setAttribute("aria-valuetext", `step ${t + 1} of ${outputs.length}: ${told(t)}`);
      player.querySelector(".at").textContent = t + 1;
      outputs.forEach((button, i) => {
        shade(button, null);
        button.classList.toggle("later", i > t);
        button.classList.toggle("current", i === t);
        button.tabIndex = i === t ? 0 : -1;
        if (i === t) button.setAttribute("aria-current", "step");
        else button.removeAttribute("aria-current");
      });
      sources.forEach((item, s) => {
        const now = weights[t].get(s) || 0;
        const total = weights.slice(0, t + 1).reduce((sum, row) => sum + (row.get(s) || 0), 0);
        shade(item, now);
        item.querySelector(".now").textContent = two(now);
        item.querySelector(".bar span").style.width = `${Math.min(total / 10, 100)}%`;
        item.title = `total so far ${two(total)}`;
      });
      write(player.querySelector(".focus"), [
        [outputs[t].textContent, outputs[t].parentElement],
        [reads[t].length ? " reads " : " reads nothing"],
        ...reads[t].slice(0, 3).flatMap(([s, w], i) => [[i ? ", " : ""], [words[s], sources[s].parentElement], [` ${percent(w)}`]]),
      ]);
      write(player.querySelector(".path"), reads.slice(0, t + 1).flatMap((row, i) => [
        [i ? " → " : "Most focus so far: "],
        row.length ? [words[row[0][0]], sources[0].parentElement] : ["∅"],
      ]));
      rows.forEach((row) => row.classList.toggle("current", Number(row.dataset.t) === t));
    }

    // Where the slider stands; the pointer shows other steps only while it is over them.
    let chosen = 0;
    const choose = (t) => show((chosen = Math.min(Math.max(t, 0), outputs.length - 1)));
    slider.addEventListener("input", () => choose(slider.value - 1));
    player.querySelector(".back").addEventListener("click", () => choose(chosen - 1));
    player.querySelector(".forth").addEventListener("click", () => choose(chosen + 1));
    outputs.forEach((button, t) => {
      button.setAttribute("aria-label", told(t));
      button.addEventListener("focus", () => choose(t));
      button.addEventListener("click", () => choose(t));
      button.addEventListener("keydown", (event) => {
        const to = { ArrowRight: t + 1, ArrowDown: t + 1, ArrowLeft: t - 1, ArrowUp: t - 1, Home: 0, End: outputs.length - 1 }[event.key];
        if (to === undefined || !outputs[to]) return;
        event.preventDefault();
        outputs[to].focus();
      });
    });
    // Only inside the player, and nothing there may change its size or place: what moves away from under the pointer
    // flickers.
    player.addEventListener("pointerover", (event) => {
      const part = event.target.closest("[data-t], [data-s]");
      if (!part) show(chosen);
      else if (part.dataset.t !== undefined) show(Number(part.dataset.t));
      else {
        const s = Number(part.dataset.s);
        outputs.forEach((button, t) => shade(button, weights[t].get(s) || 0));
      }
    });
    player.addEventListener("pointerleave", () => show(chosen));
    player.hidden = false;
    choose(0);
  }

  function wake() {
    for (const card of document.querySelectorAll(".dhyan-card:not([data-alive])")) {
      card.dataset.alive = "";
      begin(card);
    }
  }
  wake();
  document.addEventListener("dhyan-cards", wake); // cards that came later
})();

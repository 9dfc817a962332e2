// The form of `dhyan serve`: asks the JSON end point of this server, shows every decoding step as it comes, then the card.
// Words from models and users are only ever written as text; a card's HTML is the server's, which escapes them.
(() => {
  "use strict";

  const form = document.getElementById("ask");
  const text = document.getElementById("text");
  const second = document.getElementById("second");
  const stop = document.getElementById("stop");
  const pace = document.getElementById("pace");
  const status = document.getElementById("status");
  const problem = document.getElementById("problem");
  const places = [...document.querySelectorAll(".result")];
  const MOST = 60; // a longer or wider table is left to the card
  let asking = null; // the AbortController of what is under way

  const two = (weight) => (weight < 0.005 ? "0" : weight.toFixed(weight < 0.995 ? 2 : 1).replace(/^0/, ""));
  const wait = (ms, signal) => new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });

  function element(name, words, properties = {}) {
    const made = Object.assign(document.createElement(name), properties);
    if (words !== undefined) made.textContent = words;
    return made;
  }

  // ------------------------------------------------------------ while it is being written

  // The output so far as a line that screen readers follow, and the weights of each word as a row.
  class Live {
    constructor(place, title) {
      this.line = element("div", "", { className: "output", dir: "auto" });
      this.line.setAttribute("role", "group");
      this.line.setAttribute("aria-live", "polite");
      this.line.setAttribute("aria-label", `output of ${title}`);
      this.head = element("tr");
      this.body = element("tbody");
      const table = element("table", undefined, { className: "heatmap" });
      table.append(element("thead"), this.body);
      table.tHead.append(this.head);
      const scroll = element("div", undefined, { className: "scroll", tabIndex: 0 });
      scroll.setAttribute("role", "region");
      scroll.setAttribute("aria-label", "attention weights so far");
      scroll.append(table);
      this.article = element("article", undefined, { className: "dhyan-card live" });
      this.article.append(this.line, scroll);
      place.replaceChildren(this.article);
    }

    source(event) {
      this.wide = event.labels.length > MOST;
      if (this.wide) return;
      this.head.append(element("td"), ...event.labels.map((word) => element("th", word, { scope: "col", lang: event.lang })));
    }

    step(event) {
      const before = this.line.textContent;
      if (event.text.startsWith(before)) this.line.append(event.text.slice(before.length));
      else this.line.textContent = event.text;
      while (this.body.rows.length > event.keep) this.body.lastChild.remove();
      event.labels.forEach((word, i) => {
        if (this.wide || this.body.rows.length >= MOST) return;
        const row = element("tr");
        row.append(element("th", word, { scope: "row" }), ...event.weights[i].map((weight) =>
          element("td", two(weight), { className: `w${Math.round(10 * Math.min(Math.max(weight, 0), 1))}` })));
        this.body.append(row);
      });
    }
  }

  // ------------------------------------------------------------ asking

  function request(place) {
    const asked = { ...JSON.parse(place.dataset.ask), text: second ? `${text.value}\t${second.value}` : text.value };
    for (const input of form.querySelectorAll("#search [name]")) {
      if (input.type === "checkbox") asked[input.name] = input.checked;
      else if (input.value === "") continue;
      else if (input.type === "number") asked[input.name] = Number(input.value);
      else if (input.name === "constraints") asked[input.name] = input.value.split("\n").filter((phrase) => phrase.trim());
      else asked[input.name] = input.value;
    }
    return { ...asked, stream: true, card: true };
  }

  // The JSON lines of a response, each as soon as it is whole.
  async function* lines(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      const parts = (rest + (value || "")).split("\n");
      rest = parts.pop();
      for (const part of parts) yield JSON.parse(part);
      if (done) return;
    }
  }

  async function translate(place, signal) {
    const asked = request(place);
    const response = await fetch("/api/translate", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked), signal,
    });
    if (!response.ok) throw new Error((await response.json()).error);
    const shown = place.querySelector(".shown");
    const live = new Live(shown, asked.model);
    for await (const event of lines(response)) {
      if (signal.aborted) return null;
      if (event.error) throw new Error(event.error);
      if (event.source_tokens) live.source(event);
      if (event.step) {
        live.step(event);
        if (Number(pace.value)) await wait(Number(pace.value), signal);
      }
      if (event.result) return finish(shown, live, event.result);
    }
    throw new Error("the server ended its answer too early");
  }

  function finish(shown, live, result) {
    live.line.lang = result.lang;
    if (live.line.textContent !== result.text) live.line.textContent = result.text;
    const card = new DOMParser().parseFromString(result.card, "text/html").querySelector("article");
    live.article.querySelector(".scroll").remove();
    live.article.classList.remove("dhyan-card"); // its line stays, so that it is read to its end
    shown.append(document.adoptNode(card));
    document.dispatchEvent(new Event("dhyan-cards"));
    return result;
  }

  function told(results) {
    const found = results.map((r) => `${r.model}: ${r.tokens.length} tokens in ${Math.max(1, Math.round(1000 * r.seconds))} ms`);
    const same = results.length > 1 ? (results.every((r) => r.text === results[0].text) ? ". Same output." : ". Outputs differ.") : ".";
    return `Done. ${found.join("; ")}${same}`;
  }

  async function submit() {
    if (asking) asking.abort();
    const own = (asking = new AbortController());
    problem.hidden = true;
    stop.hidden = false;
    status.textContent = "Translating …";
    const results = document.getElementById("results");
    if (results.getBoundingClientRect().top > 0.7 * innerHeight) results.scrollIntoView(); // below a small screen
    form.setAttribute("aria-busy", "true");
    const tries = await Promise.allSettled(places.map((place) => translate(place, own.signal)));
    if (asking !== own) return; // a newer request has the page
    asking = null;
    stop.hidden = true;
    form.removeAttribute("aria-busy");
    const failed = tries.find((one) => one.status === "rejected");
    if (own.signal.aborted) status.textContent = "Stopped.";
    else if (failed) fail(failed.reason);
    else status.textContent = told(tries.map((one) => one.value));
  }

  function fail(reason) {
    status.textContent = "";
    problem.textContent = reason instanceof TypeError ? "The server does not answer." : reason.message;
    problem.hidden = false;
  }

  // ------------------------------------------------------------ the form

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  text.addEventListener("keydown", (event) => {
    // While an input method composes a letter, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    form.requestSubmit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && asking) asking.abort();
  });
  stop.addEventListener("click", () => asking && asking.abort());
  const examples = document.getElementById("examples");
  if (examples) {
    examples.hidden = false;
    examples.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const [first, rest] = button.textContent.split("\t");
      text.value = first;
      if (second) second.value = rest || "";
      form.requestSubmit();
    });
  }
  for (const id of ["pace-control", "keys"]) document.getElementById(id).hidden = false;
  if (matchMedia("(max-width: 34rem)").matches) document.getElementById("search").open = false;
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) pace.value = "150";
})();

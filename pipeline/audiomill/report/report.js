"use strict";
// The report's behaviour. Side files call audiomill.index and audiomill.part with what they hold.
const audiomill = (() => {
  const $ = (id) => document.getElementById(id);
  const facts = JSON.parse($("facts").textContent);
  const rows = [], chunks = new Set(), parts = new Map(), waiting = new Map();
  const SHOWN = 25;
  let limit = SHOWN, scroll = 0, playing = null;

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  function clock(seconds) {
    const whole = Math.floor(seconds), rest = (seconds - whole).toFixed(2).slice(2);
    const two = (n) => String(n).padStart(2, "0");
    const hours = Math.floor(whole / 3600);
    return (hours ? hours + ":" : "") + two(Math.floor(whole / 60) % 60) + ":" + two(whole % 60) + "." + rest;
  }

  // Loads a side file once; calls back when it has spoken.
  function load(name, key, done) {
    if (waiting.has(key)) { waiting.get(key).push(done); return; }
    waiting.set(key, [done]);
    const node = make("script", { src: facts.folder + "/" + name });
    node.onerror = () => settle(key, false);
    document.head.append(node);
  }
  function settle(key, found) {
    const done = waiting.get(key) || [];
    waiting.delete(key);
    for (const each of done) each(found);
  }

  // ---- sound: one stretch plays at a time, words light up as they are said

  function stop() {
    if (playing) { playing.audio.pause(); playing.button.textContent = "▶"; playing.draw(-1); playing.light(-1); cancelAnimationFrame(playing.frame); playing = null; }
  }
  function start(player, from) {
    if (playing && playing !== player) stop();
    playing = player;
    if (from !== undefined) player.audio.currentTime = from;
    player.audio.play().catch(() => { player.told.textContent = "this browser cannot play it"; stop(); });
    player.button.textContent = "❚❚";
    const step = () => {
      if (playing !== player) return;
      const at = player.audio.currentTime;
      if (player.until !== null && at >= player.until) { stop(); return; }
      player.draw(at); player.light(at);
      player.frame = requestAnimationFrame(step);
    };
    step();
  }
  // Arrow keys move by a second, Home and End to the ends, Enter plays or pauses.
  function seekable(canvas, player, range) {
    canvas.setAttribute("aria-valuemax", range()[1].toFixed(1));
    canvas.addEventListener("keydown", (event) => {
      const [first, last] = range(), at = player.audio.currentTime || first;
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: first, End: last - 0.5 }[event.key];
      if (to === undefined && event.key !== "Enter") return;
      event.preventDefault();
      if (to === undefined) toggle(player); else start(player, Math.min(last, Math.max(first, to)));
      canvas.setAttribute("aria-valuenow", (player.audio.currentTime || first).toFixed(1));
    });
  }
  function toggle(player) { if (playing === player) stop(); else start(player, player.audio.ended ? 0 : undefined); }

  function drawn(canvas, levels, share, bands) {
    const box = canvas.getBoundingClientRect(), scale = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, box.width * scale); canvas.height = Math.max(1, box.height * scale);
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.body);
    const mark = style.getPropertyValue("--mark"), soft = style.getPropertyValue("--soft"), line = style.getPropertyValue("--line");
    for (const [from, to] of bands || []) { pen.fillStyle = line; pen.fillRect(from * canvas.width, 0, Math.max(1, (to - from) * canvas.width), canvas.height); }
    const wide = canvas.width / Math.max(1, levels.length);
    levels.forEach((level, n) => {
      const tall = Math.max(scale, level * canvas.height * 0.95);
      pen.fillStyle = n / levels.length < share ? mark : soft;
      pen.fillRect(n * wide, (canvas.height - tall) / 2, Math.max(1, wide * 0.8), tall);
    });
    if (share >= 0) { pen.fillStyle = mark; pen.fillRect(share * canvas.width, 0, 2 * scale, canvas.height); }
  }

  // Speakers have colours by the order in which they come.
  function colours(turns) {
    const names = [...new Set(turns.map(([name]) => name))];
    return new Map(names.map((name, n) => [name, "hsl(" + ((n * 137.5 + 210) % 360) + " 65% 48%)"]));
  }
  function shares(turns, colour) {
    const seconds = new Map([...colour.keys()].map((name) => [name, 0]));
    for (const [name, from, to] of turns) seconds.set(name, seconds.get(name) + to - from);
    const total = Math.max(1e-9, [...seconds.values()].reduce((a, b) => a + b, 0));
    return make("ul", { class: "speakers" }, ...[...seconds].map(([name, each]) => make("li", { style: "--who:" + colour.get(name) },
      make("b", {}, name), " " + clock(each) + ", " + (100 * each / total).toFixed(0) + "%", make("i", { style: "width:" + (100 * each / total).toFixed(1) + "%" }))));
  }
  function lanes(canvas, turns, colour, first, length) {
    const box = canvas.getBoundingClientRect(), scale = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
    canvas.width = Math.max(1, box.width * scale); canvas.height = Math.max(1, box.height * scale);
    const names = [...colour.keys()], tall = canvas.height / Math.max(1, names.length);
    for (const [name, from, to] of turns) {
      pen.fillStyle = colour.get(name);
      pen.fillRect((from - first) / length * canvas.width, names.indexOf(name) * tall + tall * 0.1, Math.max(scale, (to - from) / length * canvas.width), tall * 0.8);
    }
  }
  // A speaker's name before the first word that is not the one's who spoke before.
  function named(spans, words, before) {
    return spans.flatMap((span, n) => {
      const who = words[n][4], told = who && who !== before ? [make("b", { class: "who" }, who + ":")] : [];
      before = who || before;
      return [...told, span];
    });
  }

  function lit(words, offset, colour = new Map()) {
    const spans = words.map(([text, from, to, sure, who]) => make("span", {
      class: sure !== null && sure < 0.5 ? "unsure" : null, style: colour.has(who) ? "--who:" + colour.get(who) : null, "data-who": who, title: clock(from) + (sure === null ? "" : ", confidence " + sure.toFixed(2)) }, text.trim()));
    let last = -1;
    return { spans, light(at) {
      const now = at < 0 ? -1 : words.findIndex(([, from, to]) => at + offset >= from && at + offset < to);
      if (now === last) return;
      if (last >= 0) spans[last].classList.remove("lit");
      if (now >= 0) spans[now].classList.add("lit");
      last = now;
    } };
  }
  function spaced(nodes) { return nodes.flatMap((node) => [node, " "]); }

  // ---- the worst clips

  function clip(found) {
    const audio = new Audio(), told = make("small", { role: "status" });
    const canvas = make("canvas", { role: "slider", tabindex: "0", "aria-valuemin": 0, "aria-label": "position in the clip; arrows move, Enter plays or pauses" });
    const button = make("button", { type: "button", "aria-label": "play or pause: " + (found.text || "clip") }, "▶");
    const { spans, light } = lit(found.words, found.start);
    const length = Math.max(0.01, found.seconds || found.stop - found.start);
    const player = { audio, button, told, light, until: null, draw: (at) => drawn(canvas, found.levels, at < 0 ? -1 : at / length) };
    audio.preload = "none";
    if (found.audio) audio.src = found.audio;
    audio.addEventListener("ended", () => { if (playing === player) stop(); });
    button.addEventListener("click", () => toggle(player));
    canvas.addEventListener("click", (event) => start(player, length * event.offsetX / canvas.clientWidth));
    seekable(canvas, player, () => [0, length]);
    spans.forEach((span, n) => span.addEventListener("click", () => start(player, Math.max(0, found.words[n][1] - found.start))));
    const text = found.words.length ? make("p", { class: "words after" }, ...spaced(spans)) : make("p", { class: "after" }, found.text || "(no text)");
    if (found.first !== null) text.prepend(make("b", {}, "after: "));
    const link = make("a", { href: "#recording=" + found.part + "/" + found.recording }, found.name);
    const node = make("article", { class: "clip", tabindex: "-1", "data-kind": found.kind },
      make("header", {}, link, make("span", { class: "soft" }, clock(found.start) + " to " + clock(found.stop)), make("span", { class: "soft" }, found.facts + (found.audio && found.stop - found.start > found.seconds + 0.1 ? ", sound of the first " + found.seconds.toFixed(0) + " s" : ""))),
      found.audio ? make("div", { class: "row" }, button, canvas) : make("p", { class: "bad" }, "no sound: " + found.missing),
      found.first === null ? null : make("p", { class: "before" }, make("b", {}, "before: "), found.first),
      text,
      found.reference === null ? null : make("p", {}, make("b", {}, "reference: "), found.reference), told);
    node.player = found.audio ? player : null;
    if (found.audio) new IntersectionObserver((seen, watch) => { if (seen.some((each) => each.isIntersecting)) { player.draw(-1); watch.disconnect(); } }).observe(canvas);
    return node;
  }

  function clips() {
    for (const kind of facts.kinds) {
      const home = $("kind-" + kind.name);
      for (const found of kind.clips) home.append(clip({ ...found, ...facts.sounds[found.id], kind: kind.name }));
    }
    const choice = $("clip-kind");
    if (choice) choice.addEventListener("change", () => {
      for (const kind of facts.kinds) $("section-" + kind.name).hidden = choice.value !== "" && choice.value !== kind.name;
    });
  }

  // ---- search

  function wanted() {
    return { text: $("query").value.trim().toLowerCase(), language: $("language").value, kind: $("kind").value, order: $("order").value };
  }
  function matching(want) {
    const words = want.text.split(/\s+/).filter(Boolean);
    const found = rows.filter((row) => (!want.language || row[5] === want.language) && (!want.kind || row[6].includes(want.kind)) &&
      (!words.length || row[8].toLowerCase().includes(want.text) || words.every((word) => (row[8] + " " + row[1]).toLowerCase().includes(word))));
    const by = { confidence: (row) => row[4] === null ? 2 : row[4], wer: (row) => row[7] === null ? 1 : -row[7], length: (row) => -row[3] }[want.order];
    return by ? found.sort((a, b) => by(a) - by(b)) : found;
  }
  function excerpt(text, query) {
    const at = query ? text.toLowerCase().indexOf(query) : -1;
    if (at < 0) return [text.slice(0, 220) + (text.length > 220 ? " …" : "")];
    const from = Math.max(0, at - 80);
    return [(from ? "… " : "") + text.slice(from, at), make("mark", {}, text.slice(at, at + query.length)), text.slice(at + query.length, at + query.length + 140) + " …"];
  }
  function list() {
    const want = wanted(), found = matching(want), all = chunks.size === facts.chunks;
    $("found").textContent = found.length.toLocaleString("en") + " of " + rows.length.toLocaleString("en") + " recordings" +
      (all ? "" : "; searched so far, of " + facts.detailed.toLocaleString("en"));
    $("hits").replaceChildren(...found.slice(0, limit).map((row) => make("li", {},
      make("a", { href: "#recording=" + row[2] + "/" + row[0] }, row[1]), " ",
      make("small", {}, clock(row[3]) + (row[5] ? ", " + row[5] : "") + (row[4] === null ? "" : ", least confidence " + row[4].toFixed(2)) +
        (row[7] === null ? "" : ", WER " + (100 * row[7]).toFixed(1) + "%") + (row[6].length ? ", " + row[6].join(", ") : "")),
      make("p", {}, ...excerpt(row[8], want.text)))));
    $("more").hidden = found.length <= limit;
  }
  function loadAll() {
    const next = Array.from({ length: facts.chunks }, (_, n) => n).find((n) => !chunks.has(n));
    if (next === undefined) return;
    load("index-" + String(next).padStart(4, "0") + ".js", "index" + next, (found) => {
      if (!found) { chunks.add(next); $("found").textContent = "a file beside this page is missing: " + facts.folder; return; }
      loadAll();
    });
  }
  function search() { limit = SHOWN; loadAll(); list(); }

  // ---- one recording

  function recording(hash) {
    const [part, id] = hash.split("/");
    const show = (found) => {
      const row = parts.get(part) && parts.get(part)[id];
      if (!found || !row) { open("This recording has no details here; they are in the tables."); return; }
      open(row);
    };
    if (parts.has(part)) show(true); else load("part-" + part.padStart(6, "0") + ".js", "part" + part, show);
  }
  function open(row) {
    stop();
    $("overview").hidden = true; $("recording").hidden = false;
    const home = $("recording");
    const back = make("p", {}, make("a", { href: "#" }, "← back to the report"));
    if (typeof row === "string") { home.replaceChildren(back, make("p", { class: "bad" }, row)); return; }
    const levels = Array.from(atob(row.envelope), (each) => (each.charCodeAt(0) / 255) ** 2);
    const most = Math.max(...levels, 1e-6), scaled = levels.map((level) => level / most);
    const canvas = make("canvas", { role: row.sound ? "slider" : "img", tabindex: row.sound ? "0" : null, "aria-label": "waveform with " + row.segments.length + " segments shaded" + (row.sound ? "; arrows move, Enter plays or pauses" : "") });
    const end = row.seconds, bands = row.segments.map((each) => [(each.start - row.from) / end, (each.stop - row.from) / end]);
    const audio = row.sound ? new Audio() : null, told = make("small", { role: "status" });
    if (audio) { audio.preload = "none"; audio.src = "file://" + row.sound.split("/").map(encodeURIComponent).join("/"); audio.addEventListener("error", () => { told.textContent = "the source cannot be played from here"; }); }
    const lights = [], turns = row.turns || [], colour = colours(turns);
    const button = make("button", { type: "button", "aria-label": "play or pause the recording" }, "▶");
    const draw = (at) => drawn(canvas, scaled, at < 0 ? -1 : (at - row.from) / end, bands);
    const player = { audio, button, told, until: null, draw, light: (at) => lights.forEach((light) => light(at)) };
    const from = (seconds) => { if (audio) start(player, seconds); };
    if (audio) { button.addEventListener("click", () => toggle(player)); canvas.addEventListener("click", (event) => from(row.from + end * event.offsetX / canvas.clientWidth)); audio.addEventListener("ended", stop); seekable(canvas, player, () => [row.from, row.from + end]); }
    const segments = row.segments.map((each) => {
      const { spans, light } = lit(each.words, 0, colour);
      lights.push(light);
      spans.forEach((span, n) => span.addEventListener("click", () => from(each.words[n][1])));
      const marks = [each.confidence === null ? null : "confidence " + each.confidence.toFixed(2), each.fallback_level ? "attempt " + each.fallback_level : null, each.failed_checks.length ? each.failed_checks.join(", ") : null, each.channel === null ? null : "channel " + each.channel, each.speaker || null];
      return make("div", { class: "segment" }, make("button", { type: "button", onclick: () => from(each.start), "aria-label": "play from " + clock(each.start) }, clock(each.start) + " – " + clock(each.stop)), " ",
        make("small", {}, marks.filter(Boolean).join(", ")),
        each.first === null || each.first === undefined ? null : make("p", { class: "before" }, make("b", {}, "before: "), each.first),
        each.text === null ? null : make("p", { class: "words" }, ...(spans.length ? spaced(named(spans, each.words, each.speaker)) : [each.text || "(no text)"])));
    });
    const strip = turns.length ? make("canvas", { class: "lanes", role: "img", style: "height:" + Math.min(160, 14 * colour.size) + "px", "aria-label": "who speaks when, a line for each of " + colour.size + " speakers" }) : null;
    const children = [back, make("h2", { tabindex: "-1", id: "recording-name" }, row.name),
      make("p", { class: "soft" }, [clock(row.seconds), (row.seconds ? 100 * row.speech / row.seconds : 0).toFixed(0) + "% speech", row.rate + " Hz", row.channels + (row.channels === 1 ? " channel" : " channels"), row.language, row.wer === null || row.wer === undefined ? null : "WER " + (100 * row.wer).toFixed(1) + "%", row.source].filter(Boolean).join(" · ")),
      row.error ? make("p", { class: "bad" }, row.error) : null,
      make("div", { class: "timeline" }, canvas, strip || ""), strip ? shares(turns, colour) : null, make("p", {}, clock(row.from) + " to " + clock(row.from + row.seconds), " ", audio ? button : make("small", {}, "the source is not a file that a browser can play; the worst clips in the report have their sound"), " ", told),
      row.reference === null ? "" : make("details", {}, make("summary", {}, "reference text"), make("p", {}, row.reference)), ...segments];
    home.replaceChildren(...children.filter(Boolean));
    draw(-1);
    if (strip) lanes(strip, turns, colour, row.from, end);
    $("recording-name").focus();
  }

  function route() {
    const found = decodeURIComponent(location.hash).match(/^#recording=(.+)$/);
    if (found) { scroll = window.scrollY || scroll; recording(found[1]); window.scrollTo(0, 0); }
    else if (!$("recording").hidden) { stop(); $("recording").hidden = true; $("overview").hidden = false; window.scrollTo(0, scroll); }
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape") { if (typing) event.target.blur(); else if (!$("recording").hidden) location.hash = ""; return; }
    if (typing) return;
    if (event.key === "/" && $("query")) { event.preventDefault(); location.hash = ""; $("query").focus(); return; }
    const all = [...document.querySelectorAll(".clip")].filter((node) => node.offsetParent !== null);
    const at = all.findIndex((node) => node.classList.contains("current"));
    if (event.key === "j" || event.key === "k") {
      const next = all[Math.min(all.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)))];
      if (next) { if (at >= 0) all[at].classList.remove("current"); next.classList.add("current"); next.focus(); next.scrollIntoView({ block: "center" }); }
    } else if (event.key === " " && at >= 0 && all[at].player && !/^(BUTTON|A|SUMMARY|CANVAS)$/.test(event.target.tagName)) { event.preventDefault(); toggle(all[at].player); }
  }

  function begin() {
    clips();
    if ($("query")) {
      let timer = 0;
      $("query").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 150); });
      for (const name of ["language", "kind", "order"]) $(name).addEventListener("change", search);
      $("more").addEventListener("click", () => { limit += SHOWN; list(); });
      if (facts.chunks) load("index-0000.js", "index0", (found) => { if (found) list(); else $("found").textContent = "a file beside this page is missing: " + facts.folder; });
    }
    window.addEventListener("hashchange", route);
    document.addEventListener("keydown", key);
    route();
  }
  document.addEventListener("DOMContentLoaded", begin);

  return {
    index: ([number, found]) => { if (!chunks.has(number)) { chunks.add(number); for (const row of found) rows.push(row); } settle("index" + number, true); list(); },
    part: ([number, found]) => { parts.set(String(number), found); settle("part" + number, true); },
  };
})();
window.audiomill = audiomill;

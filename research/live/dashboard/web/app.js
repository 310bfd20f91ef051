"use strict";
// Draws what /api/page says, every five seconds; text goes in as text, never as markup, and no style is set inline.
const NS = "http://www.w3.org/2000/svg", EVERY = 5000, SIDES = ["SELL", "HOLD", "BUY"];
const $ = (id) => document.getElementById(id);
const known = (x) => x !== null && x !== undefined;
const number = (x, digits = 2) => known(x) ? x.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }) : "";
const signed = (x, digits = 2) => known(x) ? (x > 0 ? "+" : "") + number(x, digits) : "";
const percent = (x, digits = 1) => known(x) ? number(100 * x, digits) + "\u00a0%" : "n/a";
const price = (x) => known(x) ? String(Number(x.toPrecision(6))) : "";
const minute = (iso) => iso.slice(5, 16).replace("T", " ");
// What a browser would hide or obey, such as a change of direction, is shown as an escape.
const visible = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => { const n = c.codePointAt(0), [mark, width] = n < 256 ? ["x", 2] : n < 65536 ? ["u", 4] : ["U", 8]; return "\\" + mark + n.toString(16).padStart(width, "0"); });
const colour = (x) => shown.status.figures ? "quiet" : x > 0 ? "good" : x < 0 ? "bad" : "";

function put(parent, kind, text, name) {
  const node = document.createElement(kind);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  parent.appendChild(node);
  return node;
}

function shape(parent, kind, attributes, text) {
  const node = document.createElementNS(NS, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

// A drawing as wide as its place, one unit a pixel, so that its letters stay readable on a telephone.
function canvas(id) {
  const svg = $(id), box = svg.getBoundingClientRect();
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  return [svg, box.width, box.height];
}

// heads: [text, class]; a cell is a text, [text, class] or a function that fills it.
function table(id, heads, rows, empty) {
  const node = $(id);
  node.replaceChildren();
  if (!rows.length) { put(node.insertRow(), "td", empty, "quiet wide"); return; }
  const top = node.createTHead().insertRow(), body = node.createTBody();
  for (const [text, kind] of heads) put(top, "th", text, kind);
  for (const row of rows) {
    const tr = body.insertRow();
    row.forEach((value, i) => {
      const [text, kind] = Array.isArray(value) ? value : [value, ""], [head, place] = heads[i];
      const td = put(tr, "td", typeof text === "function" ? undefined : text, `${place || ""} ${kind || ""}`.trim());
      td.dataset.head = head;
      if (typeof text === "function") text(td);
    });
  }
}

function gauge(id, share, text, level, caption) {
  const svg = $(id), filled = Math.max(0, Math.min(1, share)), length = Math.PI * 46, arc = { d: "M14 60 A46 46 0 0 1 106 60" };
  svg.replaceChildren();
  shape(svg, "path", { ...arc, class: "s-track" });
  if (filled > 0.005) shape(svg, "path", { ...arc, class: `s-arc ${level}`, "stroke-dasharray": `${filled * length} ${2 * length}` });
  shape(svg, "text", { x: 60, y: 56, "text-anchor": "middle", class: "value" }, text);
  $("c-" + id.slice(2)).textContent = caption;
}

function curve(times, values, start) {
  const [svg, width, height] = canvas("equity"), left = 58, right = width - 6, bottom = height - 22;
  $("pointed").textContent = "";
  svg.onpointermove = svg.onpointerleave = null;
  if (values.length < 2) { shape(svg, "text", { x: 0, y: 16, class: "quiet" }, "fewer than two bars"); return; }
  const low = Math.min(start, ...values), high = Math.max(start, ...values), span = high - low || 1, last = times.length - 1;
  const x = (i) => left + (right - left) * (times[i] - times[0]) / (times[last] - times[0]), y = (v) => bottom - (bottom - 10) * (v - low) / span;
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const v = low + share * span;
    shape(svg, "line", { x1: left, x2: right, y1: y(v), y2: y(v), class: "s-grid" });
    shape(svg, "text", { x: left - 8, y: y(v) + 4, "text-anchor": "end", class: "quiet" }, number(v, span < 20 ? 1 : 0));
  }
  const points = values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
  shape(svg, "polygon", { points: `${left},${bottom} ${points} ${right},${bottom}`, class: "f-area" });
  shape(svg, "line", { x1: left, x2: right, y1: y(start), y2: y(start), class: "s-start" });
  shape(svg, "polyline", { points, class: "s-line" });
  const at = (i) => new Date(times[i]).toISOString(), days = Math.max(1, Math.floor((right - left) / 130));
  for (let k = 0; k <= days; k++) {
    const i = Math.round(last * k / days);
    shape(svg, "text", { x: x(i), y: height - 5, "text-anchor": k === 0 ? "start" : k === days ? "end" : "middle", class: "quiet" }, times[last] - times[0] < 4e8 ? minute(at(i)) : at(i).slice(0, 10));
  }
  const dot = shape(svg, "circle", { r: 3.5, cx: x(last), cy: y(values[last]), class: "f-blue" });
  svg.onpointermove = (event) => {
    const wanted = event.clientX - svg.getBoundingClientRect().left;
    let i = 0;
    while (i < last && x(i) < wanted) i++;
    dot.setAttribute("cx", x(i)); dot.setAttribute("cy", y(values[i]));
    $("pointed").textContent = `${at(i).slice(0, 16).replace("T", " ")}  ${number(values[i])}  (${signed(100 * (values[i] / start - 1))} %)`;
  };
  svg.onpointerleave = () => { dot.setAttribute("cx", x(last)); dot.setAttribute("cy", y(values[last])); $("pointed").textContent = ""; };
}

function models(counts, active, isLive) {
  const [svg, width, height] = canvas("models"), sum = (m) => SIDES.reduce((total, s) => total + (counts[m][s] || 0), 0);
  const names = Object.keys(counts).filter((m) => sum(m)), most = Math.max(1, ...names.map(sum)), step = Math.min(33, height / names.length);
  names.forEach((m, i) => {
    const y = i * step, room = Math.max(0, width - 66 - 74);
    let x = 66;
    shape(svg, "text", { x: 58, y: y + 16, "text-anchor": "end" }, m);
    for (const s of SIDES) {
      const w = room * (counts[m][s] || 0) / most, bar = shape(svg, "rect", { x, y: y + 3, width: w, height: step - 13, class: "f-" + s.toLowerCase() });
      shape(bar, "title", {}, `${m}: ${number(counts[m][s] || 0, 0)} ${s}`);
      x += w;
    }
    const silent = isLive && !active.includes(m);
    shape(svg, "text", { x: x + 6, y: y + 16, class: silent ? "f-sell" : "quiet" }, silent ? "silent" : number(sum(m), 0));
  });
  if (!names.length) shape(svg, "text", { x: 0, y: 16, class: "quiet" }, "no model has voted");
}

function signals({ title, counts }) {
  $("signals-of").textContent = title;
  const [svg] = canvas("signals"), total = SIDES.reduce((sum, s) => sum + (counts[s] || 0), 0), p = (a, r) => `${(59 + r * Math.cos(a)).toFixed(2)} ${(59 + r * Math.sin(a)).toFixed(2)}`;
  if (!total) { shape(svg, "text", { x: 0, y: 16, class: "quiet" }, "no decision yet"); return; }
  let from = -Math.PI / 2;
  SIDES.forEach((s, i) => {
    const share = (counts[s] || 0) / total, to = from + 2 * Math.PI * Math.min(share, 0.9995), big = share > 0.5 ? 1 : 0, name = "f-" + s.toLowerCase();
    if (share) shape(svg, "path", { d: `M${p(from, 58)} A58 58 0 ${big} 1 ${p(to, 58)} L${p(to, 36)} A36 36 0 ${big} 0 ${p(from, 36)} Z`, class: name });
    from = to;
    shape(svg, "rect", { x: 144, y: 24 + i * 28, width: 11, height: 11, rx: 2, class: name });
    shape(svg, "text", { x: 163, y: 34 + i * 28 }, `${s}  ${percent(share)}`);
    shape(svg, "text", { x: 262, y: 34 + i * 28, class: "quiet" }, number(counts[s] || 0, 0));
  });
}

function head(page) {
  const s = page.status, g = s.governor, runner = s.runner, equity = number(g.equity);
  $("verdict").textContent = s.verdict ? "verdict: " + s.sentence : ""; $("verdict").className = ["invalid", "implausible"].includes(s.verdict) ? "failing" : "";
  $("name").textContent = s.source;
  const [state, level] = !s.is_live ? ["finished run", "unknown"] : runner.is_running === false ? ["stopped", runner.feed.startsWith("replay:") ? "unknown" : "critical"] : ["running, on paper", "healthy"];
  $("state").textContent = state; $("state").className = "tag " + level;
  $("health").textContent = s.health.said; $("health").className = "tag " + (s.figures ? "unknown" : s.health.level);
  const due = s.is_live && s.last_bar && !runner.feed.startsWith("replay:") ? Date.parse(s.last_bar) + page.interval / 1e6 - Date.now() : NaN;
  $("last-bar").textContent = (s.last_bar ? `last bar ${s.last_bar.slice(0, 16).replace("T", " ")} UTC` : "no bar yet") + (due > 0 ? `, next in ${Math.ceil(due / 60000)} min` : "");
  document.title = `${s.alarms.some((alarm) => alarm.level === "critical") ? "! " : ""}${s.figures ? s.verdict + ": " : ""}${equity} ${s.source}`;
  $("alarms").replaceChildren();
  for (const alarm of s.alarms) {  // those of other parts too: a level, a name, a text, or a text alone
    const li = put($("alarms"), "li", undefined, alarm.level || "warning");
    put(li, "b", alarm.name || alarm.level || "alarm");
    put(li, "span", alarm.text || (typeof alarm === "string" ? alarm : JSON.stringify(alarm)));
  }
  const change = g.equity - page.initial_cash, today = g.equity - page.midnight, room = page.max_drawdown * g.peak_balance;
  $("equity-now").textContent = equity;
  const line = $("equity-change");
  line.replaceChildren();
  put(line, "span", `${signed(change)} (${signed(100 * change / page.initial_cash)} %)`, colour(change));
  put(line, "span", " since the start, ");
  put(line, "span", signed(today), colour(today));
  put(line, "span", s.is_live ? " today" : " on the last day");
  const near = g.drawdown_pct / page.max_drawdown, danger = g.is_halted || near > 1 ? "bad" : near > 0.66 ? "warning" : "";
  gauge("g-balance", 1 - (g.peak_balance - g.balance) / room, number(g.balance, 0), danger, `balance, peak ${number(g.peak_balance, 0)}`);
  gauge("g-drawdown", near, percent(g.drawdown_pct), danger, `drawdown, halt at ${percent(page.max_drawdown, 0)}`);
  gauge("g-wins", g.recent_win_rate, percent(g.recent_win_rate, 0), "", `wins, last ${page.recent}`);
  const latency = s.latency_seconds;
  const facts = [["open positions", g.active_positions], ["exposure", percent(g.exposure_pct)], ["trades today", `${g.daily_trades} of ${g.max_daily_trades}`], ["closed trades", number(g.total_trades, 0)],
    ["decisions", number(s.decisions, 0)], ["approved", number(g.approved, 0)], [page.escalated, percent(s.escalation_rate)], ["arbiter accepted", `${number(s.arbiter.accepted, 0)} of ${number(s.arbiter.total_calls, 0)}`],
    ["meta, arbiter", `${s.layers.meta.word}, ${s.layers.arbiter.word}`], ["bar to journal", latency ? `${number(1000 * latency.median, 1)} ms` : "n/a"], ["models voting", s.active_models.length], ["99 % of bars", latency ? `${number(1000 * latency.p99, 1)} ms` : "n/a"]];
  $("facts").replaceChildren();
  for (const [name, value] of facts) { put($("facts"), "dt", name); put($("facts"), "dd", value); }
}

function tables(page) {
  const s = page.status, word = (d, text) => (td) => { put(td, "span", d, `pill ${d}`); if (text) put(td, "span", text, "small quiet"); };
  const share = (p) => p.notional ? ` (${signed(100 * p.unrealised / p.notional)} %)` : "";
  table("positions", [["symbol"], ["side"], ["unrealised", "n"], ["notional", "n"], ["quantity", "n extra"], ["entry", "n extra"], ["stop", "n extra"], ["since", "n extra"]],
    page.positions.map((p) => [p.symbol, [p.side, p.side], [signed(p.unrealised) + share(p), colour(p.unrealised)], number(p.notional), price(p.qty), price(p.entry_price), price(p.stop_price), minute(p.since)]), "no position is open");
  $("orders").textContent = page.orders.length ? "at the next open: " + page.orders.map((o) => o.kind === "exit" ? `close ${o.symbol}` : `${o.side} ${o.symbol} ${number(Math.abs(o.notional), 0)}`).join(", ") : "";
  const names = Object.keys(page.models).filter((m) => page.decisions.some((d) => d.votes[m]));
  const priced = page.decisions.some((d) => d.edge !== null);
  table("decisions", [["time"], ["symbol"], ["final"], ["governor"], ["wish", "minor"], ...priced ? [["edge, bp", "n"]] : [], ["ensemble", "minor"], ["meta", "minor"], ["arbiter", "minor"], ...names.map((m) => [m, "minor n"])],
    page.decisions.map((d) => [minute(d.time), d.symbol, word(d.final.action), [d.governor, "small"], [word(d.raw.action, number(d.raw.confidence))],
      ...priced ? [d.edge === null ? "" : signed(d.edge, 1)] : [], [word(d.ensemble.action, number(d.ensemble.confidence))], [`${d.meta.word} ${d.meta.reason}`, "small"], [d.arbiter ? word(d.arbiter.action, `${number(d.arbiter.confidence)} ${d.arbiter.reason}`) : ""],
      ...names.map((m) => d.votes[m] ? [`${d.votes[m].action[0]} ${number(d.votes[m].confidence)}`, `small ${d.votes[m].action}`] : ["", ""])]), "no decision yet");
  table("rates", [["rate"], ["value and band"], ["of", "n extra"], ["level"]], s.health.rows.map((r) => [r.name, r.said, number(r.n, 0), [["warning", "critical"].includes(r.level) ? r.level : "", r.level]]), "nothing to judge");
  const layers = Object.entries(s.layers);
  table("layers", [["layer"], ["now"], ["newest evidence", "wide"]], layers.some(([, told]) => told.text) ? layers.map(([layer, told]) => [layer, [told.word, told.word === "acts" || told.word === "on" ? "healthy" : "unknown"], told.text]) : [], "none is needed: every layer that is on acts");
  table("refusals", [["rule"], ["set by", "extra"], ["times", "n"]],
    s.governor.rules.filter((r) => r.refused).sort((a, b) => b.refused - a.refused).map((r) => [r.label, [r.parameter ? `${r.parameter} = ${r.value}` : "", "small quiet"], number(r.refused, 0)]), "none");
  table("events", [["time"], ["kind"], ["symbol", "extra"], ["text", "wide"]], page.events.map((e) => [minute(e.time), e.kind, e.symbol || "", e.text]), "nothing was noted");
}

// A figure on its scale: the band as a bar, the backtest's usual value as a line, now as a dot.
function strip(td, r) {
  const svg = shape(td, "svg", { viewBox: "0 0 120 14", class: "strip", role: "img", "aria-label": r.is_out ? "out of its band" : "in its band" });
  const low = Math.min(r.low, r.value), span = Math.max(r.high, r.value) - low || 1, x = (v) => 5 + 110 * (v - low) / span;
  shape(svg, "line", { x1: 5, x2: 115, y1: 7, y2: 7, class: "s-grid" });
  shape(svg, "rect", { x: x(r.low), y: 3, width: Math.max(2, x(r.high) - x(r.low)), height: 8, rx: 2, class: "f-band" });
  shape(svg, "line", { x1: x(r.usual), x2: x(r.usual), y1: 2, y2: 12, class: "s-usual" });
  shape(svg, "circle", { cx: x(r.value), cy: 7, r: 4, class: r.is_out ? "f-sell" : "f-blue" });
}

function bands(b) {
  const text = (r, v) => r.kind === "drift" ? number(v, 3) : (r.kind === "gap" && v > 0 ? "+" : "") + percent(v);
  table("bands", [["figure", "wide"], ["now", "n"], ["band", "n"], ["usual", "n extra"], ["", "extra"], ["is"]],
    b.rows.map((r) => [r.name, [text(r, r.value), r.is_out ? "warning" : ""], `${text(r, r.low)} to ${text(r, r.high)}`, text(r, r.usual), [(td) => strip(td, r)], r.is_out ? ["out", "warning"] : ["in", "healthy"]]), b.text);
  $("bands-text").textContent = b.rows.length ? b.text + (b.inside ? `; ${b.inside} steadier features not shown` : "") : "";
  const due = b.due.filter((d) => d.text);
  $("due-text").textContent = b.due.length ? due.length ? `yes, ${due.length} of ${b.due.length} causes` : "no" : "";
  table("due", [["cause"], ["state", "wide"]], b.due.map((d) => [d.cause, d.text ? [`due since ${minute(d.since)}: ${d.text}`, "warning"] : [`not due; it is ${d.rule}`, "quiet wide"]]), "nothing is retrained for a finished run");
}

let shown = null;

function draw(page) {
  shown = page;
  head(page);
  curve(page.equity.time, page.equity.value, page.initial_cash);
  models(page.models, page.status.active_models, page.status.is_live);
  signals(page.signals);
  bands(page.bands);
  tables(page);
}

async function refresh() {
  const start = performance.now();
  try {
    const answer = await fetch("/api/page", { cache: "no-store", signal: AbortSignal.timeout(2 * EVERY) }), page = JSON.parse(await answer.text(), (_, x) => typeof x === "string" ? visible(x) : x);
    if (!answer.ok) throw new Error(page.error || answer.statusText);
    draw(page);
    $("age").textContent = "seen " + new Date().toISOString().slice(11, 19);
    document.body.className = "";
  } catch (error) {
    $("age").textContent = "no answer from the server: " + error.message;
    document.body.className = "lost";
  }
  performance.measure("refresh", { start });
  setTimeout(refresh, EVERY);
}

window.addEventListener("resize", () => shown && draw(shown));
refresh();

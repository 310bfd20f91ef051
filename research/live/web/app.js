"use strict";
// Draws what /api/page says, every five seconds; text goes in as text, never as markup.
const NS = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const number = (x, digits = 2) => x === null || x === undefined ? "" : x.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (x, digits = 1) => x === null || x === undefined ? "n/a" : (100 * x).toFixed(digits) + " %";
const price = (x) => x === null || x === undefined ? "" : String(Number(x.toPrecision(7)));

function shape(parent, kind, attributes, text) {
  const node = document.createElementNS(NS, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

function table(id, heads, rows, empty) {
  const node = $(id);
  node.replaceChildren();
  if (!rows.length) { const cell = node.insertRow().insertCell(); cell.textContent = empty; cell.className = "quiet"; return; }
  const top = node.createTHead().insertRow();
  for (const [text, kind] of heads) { const th = document.createElement("th"); th.textContent = text; th.className = kind || ""; top.appendChild(th); }
  const body = node.createTBody();
  for (const row of rows) {
    const tr = body.insertRow();
    row.forEach((value, i) => { const td = tr.insertCell(); const [text, kind] = Array.isArray(value) ? value : [value, heads[i][1]]; td.textContent = text; td.className = kind || ""; });
  }
}

function gauge(id, share, text, isBad) {
  const svg = $(id), filled = Math.max(0, Math.min(1, share)), length = Math.PI * 46;
  svg.replaceChildren();
  shape(svg, "path", { d: "M14 62 A46 46 0 0 1 106 62", class: "s-track" });
  shape(svg, "path", { d: "M14 62 A46 46 0 0 1 106 62", class: "s-arc" + (isBad ? " bad" : ""), "stroke-dasharray": `${filled * length} ${length}` });
  shape(svg, "text", { x: 60, y: 60, "text-anchor": "middle" }, text);
}

function curve(times, values) {
  const svg = $("equity");
  svg.replaceChildren();
  if (values.length < 2) { shape(svg, "text", { x: 10, y: 30, class: "quiet" }, "no bar yet"); return; }
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const x = (i) => 62 + 826 * (times[i] - times[0]) / (times[times.length - 1] - times[0]), y = (v) => 190 - 170 * (v - low) / span;
  for (const v of [low, (low + high) / 2, high]) {
    shape(svg, "line", { x1: 62, x2: 888, y1: y(v), y2: y(v), class: "s-grid" });
    shape(svg, "text", { x: 56, y: y(v) + 4, "text-anchor": "end", class: "quiet" }, number(v, 0));
  }
  shape(svg, "polyline", { points: values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" "), class: "s-line" });
  for (const [i, anchor] of [[0, "start"], [values.length - 1, "end"]]) shape(svg, "text", { x: x(i), y: 212, "text-anchor": anchor, class: "quiet" }, new Date(times[i]).toISOString().slice(0, 16).replace("T", " "));
}

const SIDES = ["SELL", "HOLD", "BUY"];

function models(counts) {
  const svg = $("models"), names = Object.keys(counts).filter((m) => SIDES.some((s) => counts[m][s]));
  svg.replaceChildren();
  const most = Math.max(1, ...names.map((m) => SIDES.reduce((sum, s) => sum + (counts[m][s] || 0), 0)));
  names.forEach((m, i) => {
    let x = 74;
    const y = 14 + i * 34;
    shape(svg, "text", { x: 66, y: y + 14, "text-anchor": "end" }, m);
    for (const s of SIDES) { const w = 290 * (counts[m][s] || 0) / most; const bar = shape(svg, "rect", { x, y, width: w, height: 20, class: "f-" + s.toLowerCase() }); shape(bar, "title", {}, `${m} ${s} ${counts[m][s] || 0}`); x += w; }
    shape(svg, "text", { x: x + 6, y: y + 14, class: "quiet" }, number(SIDES.reduce((sum, s) => sum + (counts[m][s] || 0), 0), 0));
  });
  if (!names.length) shape(svg, "text", { x: 10, y: 30, class: "quiet" }, "no model has voted");
}

function signals(counts) {
  const svg = $("signals"), total = SIDES.reduce((sum, s) => sum + (counts[s] || 0), 0);
  svg.replaceChildren();
  if (!total) { shape(svg, "text", { x: 10, y: 30, class: "quiet" }, "no decision yet"); return; }
  let at = -Math.PI / 2;
  SIDES.forEach((s, i) => {
    const share = (counts[s] || 0) / total, end = at + 2 * Math.PI * Math.min(share, 0.99999), big = share > 0.5 ? 1 : 0;
    const p = (a, r) => `${(100 + r * Math.cos(a)).toFixed(2)} ${(95 + r * Math.sin(a)).toFixed(2)}`;
    shape(svg, "path", { d: `M${p(at, 80)} A80 80 0 ${big} 1 ${p(end, 80)} L${p(end, 48)} A48 48 0 ${big} 0 ${p(at, 48)} Z`, class: "f-" + s.toLowerCase() });
    at = end;
    shape(svg, "rect", { x: 220, y: 48 + i * 34, width: 12, height: 12, class: "f-" + s.toLowerCase() });
    shape(svg, "text", { x: 240, y: 59 + i * 34 }, `${s}  ${percent(share)}  (${number(counts[s] || 0, 0)})`);
  });
}

function draw(page) {
  const s = page.status, g = s.governor;
  $("name").textContent = s.source;
  $("kind").textContent = s.is_live ? "live, on paper" : "finished run";
  $("health").textContent = s.health.level; $("health").className = "tag " + s.health.level;
  $("stop").hidden = !(s.emergency_stop || g.is_halted); $("stop").className = "tag critical";
  $("stop").textContent = s.emergency_stop ? "kill switch on: no entries" : "halted by drawdown: no entries";
  $("last-bar").textContent = s.last_bar || "none";
  gauge("g-balance", g.equity / g.peak_balance, number(g.equity), g.equity < page.initial_cash);
  gauge("g-drawdown", g.drawdown_pct / page.max_drawdown, percent(g.drawdown_pct), g.drawdown_pct > page.max_drawdown);
  gauge("g-wins", g.recent_win_rate, percent(g.recent_win_rate, 0), false);
  const latency = s.latency_seconds;
  const facts = [["balance", number(g.balance)], ["peak", number(g.peak_balance)], ["exposure", percent(g.exposure_pct)], ["trades today", `${g.daily_trades} of ${g.max_daily_trades}`],
    ["closed trades", number(g.total_trades, 0)], ["decisions", number(s.total_predictions, 0)], ["meta layer, arbiter", `${s.meta_enabled ? "on" : "off"}, ${s.arbiter_enabled ? "on" : "off"}`],
    ["bar to journal", latency ? `${number(1000 * latency.median, 1)} ms, 99 %: ${number(1000 * latency.p99, 1)} ms` : "n/a"]];
  const list = $("facts"); list.replaceChildren();
  for (const [name, value] of facts) { const dt = document.createElement("dt"), dd = document.createElement("dd"); dt.textContent = name; dd.textContent = value; list.append(dt, dd); }
  curve(page.equity.time, page.equity.value); models(page.models); signals(page.ensemble);
  table("positions", [["symbol"], ["side"], ["quantity", "n"], ["entry", "n"], ["stop", "n"], ["notional", "n"], ["unrealised", "n"], ["since"]],
    page.positions.map((p) => [p.symbol, [p.side, p.side], price(p.qty), price(p.entry_price), price(p.stop_price), number(p.notional), number(p.unrealised), p.since.slice(0, 16).replace("T", " ")]), "no position is open");
  table("decisions", [["time"], ["symbol"], ["final"], ["governor"], ["ensemble"], ["meta"], ["arbiter"], ["votes"]],
    page.decisions.map((d) => [d.time.slice(5, 16).replace("T", " "), d.symbol, [`${d.final.action} (${d.final.source})`, d.final.action], d.governor,
      [`${d.ensemble.action} ${number(d.ensemble.confidence)}`, d.ensemble.action], `${d.meta.verdict} ${d.meta.reason}`, d.arbiter ? `${d.arbiter.action} ${number(d.arbiter.confidence)} ${d.arbiter.reason}` : "",
      Object.entries(d.votes).map(([m, v]) => `${m} ${v.action} ${number(v.confidence)}`).join(", ")]), "no decision yet");
  table("rates", [["rate"], ["value", "n"], ["of", "n"], ["level"], ["healthy"]], s.health.rows.map((r) => [r.name, percent(r.value), number(r.n, 0), [r.level, r.level], r.band]), "nothing to judge");
  table("refusals", [["reason"], ["times", "n"]], Object.entries(g.refusals).sort((a, b) => b[1] - a[1]).map(([name, n]) => [name, number(n, 0)]), "none");
  table("events", [["time"], ["kind"], ["symbol"], ["text", "wide"]], page.events.map((e) => [e.time.slice(0, 19).replace("T", " "), e.kind, e.symbol, e.text]), "nothing was noted");
}

async function refresh() {
  try {
    const answer = await fetch("/api/page", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    draw(await answer.json());
    $("age").textContent = "seen " + new Date().toISOString().slice(11, 19) + "Z";
    document.body.className = "";
  } catch (error) { $("age").textContent = "no answer from the server: " + error.message; document.body.className = "lost"; }
}
refresh();
setInterval(refresh, 5000);

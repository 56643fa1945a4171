// The numbers of a running campaign. Asks once a second while the page is visible and the
// campaign is not over. All texts are set as text: replies come from strangers.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const live = document.getElementById("pr-live");
  if (!live) return;
  const byId = (id) => document.getElementById(id);
  const count = new Intl.NumberFormat("en");
  const WINDOW_MS = 30000;
  const seen = [];
  let failures = 0;

  function element(tag, text, className) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  }

  function fill(node, children) { node.replaceChildren(...children); }

  function duration(minutes) {
    if (!isFinite(minutes)) return "–";
    if (minutes < 1) return "< 1 min";
    if (minutes < 90) return `${Math.round(minutes)} min`;
    if (minutes < 60 * 48) return `${(minutes / 60).toFixed(1)} h`;
    return `${(minutes / 1440).toFixed(1)} days`;
  }

  function ago(seconds) {
    if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s ago`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
    return new Date(Date.now() - seconds * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC";
  }

  function rate(data) {
    const now = performance.now();
    seen.push([now, data.settled]);
    while (now - seen[0][0] > WINDOW_MS) seen.shift();
    const spent = now - seen[0][0];
    if (spent < 4000) return [data.average_per_minute, "a minute on average"];
    return [Math.max(0, Math.round(60000 * (data.settled - seen[0][1]) / spent)), "a minute now"];
  }

  function sumRows(rows, total, totalName) {
    const made = rows.map(([name, number, key]) => {
      const row = element("tr", undefined, key ? `pr-of-${key}` : "");
      row.append(element("th", name), element("td", number));
      return row;
    });
    const last = element("tr", undefined, "pr-total");
    last.append(element("th", totalName), element("td", total));
    return [...made, last];
  }

  function account(data) {
    const states = data.states.filter((one) => one.count > 0);
    fill(byId("pr-account"), states.map((one) => {
      const part = element("span", undefined, `pr-part pr-of-${one.key}`);
      part.style.flexGrow = one.count;
      part.title = `${one.name}: ${count.format(one.count)}`;
      return part;
    }));
    const excluded = data.excluded.filter((one) => one.count > 0);
    const left = excluded.reduce((sum, one) => sum + one.count, 0);
    fill(byId("pr-funnel"), sumRows(
      [["on the lists", count.format(data.matched)],
        ...excluded.map((one) => [one.name, `− ${count.format(one.count)}`])],
      count.format(data.audience), data.expanded ? "audience" : "audience so far"));
    fill(byId("pr-states"), sumRows(
      states.map((one) => [one.name, count.format(one.count), one.key]),
      count.format(states.reduce((sum, one) => sum + one.count, 0)), "together"));
    const adds = data.matched - left === data.audience;
    byId("pr-balance").textContent = adds
      ? `${count.format(data.matched)} on the lists − ${count.format(left)} left out = ` +
        `${count.format(data.audience)} messages, and every one of them is accounted for.`
      : "The account is being brought up to date.";
  }

  function table(id, head, rows, none) {
    const top = element("tr");
    top.append(...head.map((name) => element("th", name)));
    const thead = element("thead");
    thead.append(top);
    const body = element("tbody");
    for (const cells of rows) {
      const row = element("tr");
      row.append(...cells.map((text) => element("td", text)));
      body.append(row);
    }
    if (!rows.length) {
      const row = element("tr");
      const cell = element("td", none, "pr-quiet");
      cell.colSpan = head.length;
      row.append(cell);
      body.append(row);
    }
    fill(byId(id), [thead, body]);
  }

  function paths(id, head, rows, waits) {
    table(id, [head, "accepted", "tried later", "refused", ...(waits ? ["waiting"] : [])],
      rows.map((one) => [one.name, count.format(one.accepted), count.format(one.later + one.in_doubt),
        count.format(one.refused), ...(waits ? [count.format(one.waiting)] : [])]),
      "No attempt yet.");
  }

  function refusals(data) {
    const rows = data.refusals.map((one) => {
      const row = element("li", undefined, one.outcome === "rejected" ? "pr-bad" : "pr-later");
      const head = element("div", `${ago(data.now - one.at)} · ${one.provider || "unknown"} · `
        + `${one.source || "a source that is gone"} · ${one.outcome.replace("_", " ")}`
        + (one.reason ? ` (${one.reason})` : ""), "pr-quiet");
      const link = element("a", " message");
      link.href = `${live.dataset.messages}${one.message_id}/change/`;
      head.append(link);
      const code = [one.reply_code || "", one.enhanced].filter(Boolean).join(" ");
      row.append(head, element("pre", `${code} ${one.reply}`.trim() || "no reply"));
      return row;
    });
    fill(byId("pr-refusals"), rows.length ? rows : [element("li", "None so far.", "pr-quiet")]);
  }

  function show(data) {
    const [perMinute, words] = rate(data);
    const waiting = data.audience - data.settled;
    const isMoving = data.state === "sending" && !data.is_over;
    byId("pr-label").textContent = data.label.charAt(0).toUpperCase() + data.label.slice(1);
    byId("pr-settled").textContent = `${count.format(data.settled)} of ${count.format(data.audience)}${data.expanded ? "" : "+"}`;
    byId("pr-rate").textContent = count.format(isMoving ? perMinute : data.average_per_minute);
    byId("pr-rate-words").textContent = isMoving ? words : "a minute on average";
    byId("pr-eta-tile").hidden = data.is_over || (!waiting && data.expanded);
    byId("pr-eta").textContent = isMoving ? duration(waiting / perMinute) : "–";
    byId("pr-attempts").textContent = count.format(data.attempts);
    fill(byId("pr-holds"), data.holds.map((reason) => element("p", `Stopped on purpose: ${reason}`, "pr-note pr-red")));
    account(data);
    paths("pr-providers", "provider", data.providers, true);
    paths("pr-sources", "source", data.sources, false);
    byId("pr-age").textContent = data.detail_age > 3 ? `Providers and sources were counted ${data.detail_age} s ago.` : "";
    byId("pr-waits-card").hidden = data.waits.length === 0;
    table("pr-waits", ["provider", "for", "next", "messages"], data.waits.map((one) => [
      one.provider, one.why, one.due ? inFuture(one.due - data.now) : "now", count.format(one.count)]), "");
    refusals(data);
  }

  function inFuture(seconds) {
    return seconds <= 0 ? "now" : `in ${duration(seconds / 60)}`;
  }

  async function ask() {
    try {
      const answer = await fetch(live.dataset.url, { credentials: "same-origin", cache: "no-store" });
      if (answer.redirected || !answer.ok) throw new Error(answer.redirected ? "you are signed out" : `the server answered ${answer.status}`);
      const data = await answer.json();
      failures = 0;
      byId("pr-trouble").hidden = true;
      show(data);
      if (data.state !== byId("pr-state").dataset.state) { location.reload(); return; }
      later(data.is_over ? 10000 : 1000);
    } catch (problem) {
      failures += 1;
      byId("pr-trouble").textContent = `These numbers are old: ${problem.message}. Trying again.`;
      byId("pr-trouble").hidden = false;
      later(Math.min(30000, 1000 * 2 ** failures));
    }
  }

  function later(ms) {
    setTimeout(() => { if (document.hidden) { waitUntilSeen(); } else { ask(); } }, ms);
  }

  function waitUntilSeen() {
    document.addEventListener("visibilitychange", () => { seen.length = 0; ask(); }, { once: true });
  }

  const first = JSON.parse(byId("pr-snapshot").textContent);
  show(first);
  later(first.is_over ? 10000 : 1000);
});

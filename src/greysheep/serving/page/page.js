"use strict";
// Texts from the service enter the page as text alone, never as markup.

const by = (id) => document.getElementById(id);
const GROUPS = ["low", "med-low", "medium", "med-high", "high"];
const SAID = {
  low: "Few others have rows like hers: she is of the niche fifth.",
  "med-low": "Fewer others than usual have rows like hers.",
  medium: "As many others as usual have rows like hers.",
  "med-high": "More others than usual have rows like hers.",
  high: "Many others have rows like hers: she is of the mainstream fifth.",
};
const ROWS = 12;
let key = sessionStorage.getItem("key") || "";
let again = null; // what to ask once a key is there
let latest = 0; // the number of the last question: an answer to an earlier one comes too late
const chosen = new Map(); // items of somebody new: text of the id -> {id, title}

// Integers beyond 2^53 keep their digits: they are read as BigInt, and written as such numbers again.
const read = (text) => JSON.parse(text, (_, value, context) =>
  typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && context
    && /^-?\d+$/.test(context.source) ? BigInt(context.source) : value);
const write = (value) => JSON.stringify(value, (_, one) =>
  typeof one === "bigint" ? (JSON.rawJSON ? JSON.rawJSON(String(one)) : Number(one)) : one);

function make(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

async function ask(path, body) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = { headers };
  if (body !== undefined) {
    options.method = "POST";
    options.body = write(body);
    headers["Content-Type"] = "application/json";
  }
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer.");
  }
  const told = read(await reply.text());
  if (reply.ok) return told;
  const error = new Error(told.error || `The service answered ${reply.status}.`);
  error.locked = reply.status === 401;
  throw error;
}

function tell(text, bad = false) {
  by("status").textContent = text;
  by("status").classList.toggle("bad", bad);
}

async function show(question) {
  const mine = ++latest;
  tell("Asking …");
  try {
    const profile = await question();
    if (mine !== latest) return;
    draw(profile);
    tell("");
    by("shown").hidden = false;
    by("shown").focus({ preventScroll: true });
    by("who").scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (mine !== latest) return;
    by("shown").hidden = true;
    tell(error.message, true);
    if (error.locked) unlock(() => show(question));
  }
}

function unlock(next) {
  again = next;
  by("key-form").hidden = false;
  by("key").focus();
}

const titleOf = (item) => item.title || String(item.item_id);
const shownId = (item) => (item.title ? make("span", String(item.item_id), { class: "note" }) : "");

function draw(profile) {
  const { user_id: user, group, n_rows: rows } = profile;
  by("who").textContent = user === null ? "Somebody new" : `User ${user}`;
  by("scale").replaceChildren(...GROUPS.map((name) =>
    make("li", name, name === group ? { "aria-current": "true" } : {})));
  by("scale").hidden = group === null;
  const left = profile.unknown_items ? ` ${profile.unknown_items} of the items are unknown to the model.` : "";
  by("group-said").textContent = (SAID[group] || "Her group is not known.") + left;
  by("rows-title").textContent = `Her rows (${rows.toLocaleString("en")})`;
  drawRows(profile.rows, ROWS, rows);
  drawLists(profile);
  by("voices-part").hidden = profile.voices.length === 0;
  by("voices").replaceChildren(...bars(profile.voices.map((one) =>
    [one.voice, one.weight, `${(100 * one.weight).toFixed(1)} %`]), 1));
}

function drawRows(rows, most, all) {
  by("rows").replaceChildren(...rows.slice(0, most).map((item) => {
    const line = make("li"), text = make("div", titleOf(item));
    text.append(shownId(item));
    line.append(text);
    return line;
  }));
  by("more").hidden = rows.length <= most;
  by("more").textContent = rows.length < all
    ? `Show the newest ${rows.length.toLocaleString("en")}` : `Show all ${rows.length.toLocaleString("en")}`;
  by("more").onclick = () => drawRows(rows, rows.length, all);
}

function drawLists(profile) {
  const held = profile.lists.map((list) => new Set(list.items.map((item) => String(item.item_id))));
  by("lists-title").textContent = profile.lists.length > 1 ? "Her lists" : "Her list";
  const how = profile.exact
    ? "Open an item for her rows that speak most for it; all contributions together are its score."
    : "Open an item for her rows that speak most for it: a bar is what its score loses without that row.";
  by("exactness").textContent = how + (profile.lists.length > 1 ? " Bold: in this list only." : "");
  by("lists").replaceChildren(...profile.lists.map((list, place) => {
    const column = make("div"), items = make("ol");
    column.append(make("h3", place ? `${list.model} (beside it)` : list.model));
    if (list.error !== null) column.append(make("p", list.error, { class: "quiet" }));
    for (const item of list.items) {
      const others = held.filter((_, n) => n !== place);
      const only = others.length > 0 && !others.some((ids) => ids.has(String(item.item_id)));
      items.append(drawItem(item, only));
    }
    if (!list.items.length && list.error === null) column.append(make("p", "No item is left for her.", { class: "quiet" }));
    column.append(items);
    return column;
  }));
}

function drawItem(item, only) {
  const line = make("li"), because = item.because || [];  // a baseline gives no reasons
  const named = make(because.length ? "summary" : "div", titleOf(item), only ? { class: "only" } : {});
  named.append(shownId(item));
  if (!because.length) {
    line.append(named);
    return line;
  }
  const why = make("details"), most = Math.max(...because.map((one) => one.contribution));
  const list = make("ul", undefined, { class: "bars", "aria-label": `Rows that speak for ${titleOf(item)}` });
  list.append(...bars(because.map((one) => [titleOf(one), one.contribution, one.contribution.toPrecision(2)]), most));
  why.append(named, list);
  line.append(why);
  return line;
}

function bars(values, most) {
  return values.map(([name, value, said]) => {
    const line = make("li"), bar = make("div", undefined, { class: "bar" });
    bar.style.width = `${Math.max(0, Math.min(100, 100 * value / most))}%`;
    line.append(bar, make("span", name), make("span", said, { class: "number" }));
    return line;
  });
}

// Somebody new: a combobox over the items

let asked = 0, at = -1, waiting = 0;

async function search() {
  const words = by("search").value.trim(), mine = ++asked;
  if (!words) return close();
  try {
    const { items } = await ask(`/v1/items?n=20&search=${encodeURIComponent(words)}`);
    if (mine === asked && by("search").value.trim()) open(items.filter((item) => !chosen.has(String(item.item_id))));
  } catch (error) {
    tell(error.message, true);
    if (error.locked) unlock(search);
  }
}

function open(items) {
  const options = items.map((item, n) => {
    const option = make("li", item.title ? `${item.title} · ${item.item_id}` : String(item.item_id),
      { role: "option", id: `found-${n}`, "aria-selected": "false" });
    option.onmousedown = (event) => { event.preventDefault(); choose(item); };
    option.item = item;
    return option;
  });
  if (!options.length) options.push(make("li", "nothing found", { role: "option", "aria-disabled": "true", "aria-selected": "false" }));
  by("found").replaceChildren(...options);
  by("found").hidden = false;
  by("search").setAttribute("aria-expanded", "true");
  mark(-1);
}

function close() {
  asked++;
  by("found").hidden = true;
  by("search").setAttribute("aria-expanded", "false");
  mark(-1);
}

function mark(place) {
  at = place;
  [...by("found").children].forEach((option, n) => option.setAttribute("aria-selected", String(n === place)));
  const option = by("found").children[place];
  if (option) option.scrollIntoView({ block: "nearest" });
  if (option) by("search").setAttribute("aria-activedescendant", option.id);
  else by("search").removeAttribute("aria-activedescendant");
}

function choose(item) {
  chosen.set(String(item.item_id), item);
  by("search").value = "";
  close();
  drawChosen();
}

function drawChosen() {
  by("chosen").replaceChildren(...[...chosen].map(([id, item]) => {
    const line = make("li"), button = make("button", titleOf(item), { type: "button", "aria-label": `Remove ${titleOf(item)}` });
    button.onclick = () => { chosen.delete(id); drawChosen(); by("search").focus(); };
    line.append(button);
    return line;
  }));
  by("compose").disabled = by("clear").disabled = chosen.size === 0;
}

by("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 120); });
by("search").addEventListener("blur", close);
by("search").addEventListener("keydown", (event) => {
  const options = [...by("found").children].filter((option) => option.item), isOpen = !by("found").hidden;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const step = event.key === "ArrowDown" ? 1 : -1;
    if (isOpen && options.length) mark((Math.max(at, step > 0 ? -1 : 0) + step + options.length) % options.length);
    else if (!isOpen) search();
  } else if (event.key === "Enter" && isOpen && options.length && (at >= 0 || by("search").value.trim())) {
    event.preventDefault();
    choose(options[Math.max(at, 0)].item);
  } else if (event.key === "Enter" && by("search").value.trim()) {
    event.preventDefault(); // the items found are not there yet
  } else if (event.key === "Escape") {
    close();
  } else if (event.key === "Backspace" && !by("search").value && chosen.size) {
    chosen.delete([...chosen.keys()].pop());
    drawChosen();
  }
});

const askUser = (user) => show(() => ask(`/v1/users/${encodeURIComponent(user)}/profile`));

by("user-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = by("user").value;
  if (!user) return;
  history.replaceState(null, "", `#user=${encodeURIComponent(user)}`);
  askUser(user);
});
by("history-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!chosen.size) return;
  history.replaceState(null, "", location.pathname);
  const items = [...chosen.values()].map((item) => item.item_id);
  show(() => ask("/v1/profile", { history: { items } }));
});
by("clear").addEventListener("click", () => { chosen.clear(); drawChosen(); by("search").focus(); });
by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = by("key").value;
  sessionStorage.setItem("key", key);
  by("key-form").hidden = true;
  if (again) again();
});

async function begin() {
  try {
    const { model, version } = await ask("/health/ready");
    by("about").textContent = `${model}, version ${version.slice(0, 12)}`;
  } catch (error) {
    tell(error.message, true);
  }
  const named = new URLSearchParams(location.hash.slice(1)).get("user");
  if (named) { by("user").value = named; askUser(named); }
}
begin();

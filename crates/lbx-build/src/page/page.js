"use strict";
// Draws the page from the data in it. Names are strangers': they become text, and nothing else.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const GAP = 2, TITLE = 20, SMALLEST = 3, DEEPEST = 3, LISTED = 50;
const state = { artifact: 0, unit: "size", search: "", place: [] };
let root;

function bytes(number) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  let value = Math.abs(number);
  while (value >= 999.95 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return (number < 0 ? "-" : "") + (unit ? value.toFixed(1) : String(value)) + " " + units[unit];
}

function change(before, after) {
  if (before === after) return "unchanged";
  return (after > before ? "+" : "-") + bytes(Math.abs(after - before));
}

function element(name, properties, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key === "class") made.className = value; else made[key] = value;
  }
  for (const child of children) made.append(child);
  return made;
}

// The tree: packages, then the folders and files of each.
function grow(artifact) {
  const top = node("", null);
  const owners = artifact.owners.map(([name, own]) => {
    const child = node(own ? "own: " + name : name, top);
    child.hue = own ? -1 : hue(name);
    top.children.set(child.name + "\n" + own, child);
    return child;
  });
  for (const [path, owner, size, packed] of artifact.files) {
    let place = owners[owner];
    const parts = path.split("/");
    const last = parts.pop();
    for (const part of parts) {
      let next = place.children.get(part + "/");
      if (!next) { next = node(part + "/", place); place.children.set(part + "/", next); }
      place = next;
    }
    const file = node(last, place);
    Object.assign(file, { path, size, packed, files: 1, owner: artifact.owners[owner][0] });
    place.children.set(last, file);
    for (let up = place; up; up = up.parent) { up.size += size; up.packed += packed; up.files += 1; }
  }
  return top;
}

function node(name, parent) {
  return { name, parent, children: new Map(), size: 0, packed: 0, files: 0, hits: 0, hue: parent ? parent.hue : 0 };
}

function hue(name) {
  let sum = 7;
  for (const character of name.replace(/ [^ ]*$/, "")) sum = (sum * 31 + character.codePointAt(0)) % 99991;
  return (sum * 47) % 360;
}

function isHit(file) {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (file.path + " " + file.owner).toLowerCase();
  return words.every((word) => text.includes(word));
}

// Counts what is found, below each node.
function seek(place) {
  if (place.path !== undefined) place.hits = isHit(place) ? 1 : 0;
  else { place.hits = 0; for (const child of place.children.values()) place.hits += seek(child); }
  return place.hits;
}

function here() {
  let place = root;
  for (const name of state.place) {
    const isIt = (child) => child.name === name;
    const next = [...place.children.values()].find(isIt) || items(place, area()).map((item) => item.child).find((child) => child.isOther && isIt(child));
    // In another window, other things are too small to be seen.
    if (!next) { state.place = trail(place); return place; }
    place = next;
  }
  return place;
}

// Squarified: rows of tiles that are as square as they can be, in the order of their sizes.
function squarify(items, box) {
  const tiles = [];
  let { x, y, width, height } = box;
  let rest = items.reduce((sum, item) => sum + item.value, 0);
  let index = 0;
  while (index < items.length && width > 0 && height > 0 && rest > 0) {
    const side = Math.min(width, height), scale = (width * height) / rest;
    let end = index, sum = 0, worst = Infinity;
    while (end < items.length) {
      const next = sum + items[end].value * scale;
      const ratio = Math.max((side * side * items[index].value * scale) / (next * next), (next * next) / (side * side * items[end].value * scale));
      if (ratio > worst) break;
      worst = ratio; sum = next; end += 1;
    }
    const thick = sum / side;
    let along = 0;
    for (; index < end; index += 1) {
      const long = (items[index].value * scale) / thick;
      tiles.push(width >= height ? { item: items[index], x, y: y + along, width: thick, height: long } : { item: items[index], x: x + along, y, width: long, height: thick });
      along += long; rest -= items[index].value;
    }
    if (width >= height) { x += thick; width -= thick; } else { y += thick; height -= thick; }
  }
  return tiles;
}

// The children of a node by size; those that would be too small to see are one.
function items(place, area) {
  const all = [...place.children.values()].map((child) => ({ child, value: child[state.unit] })).filter((item) => item.value > 0);
  all.sort((left, right) => right.value - left.value || (left.child.name < right.child.name ? -1 : 1));
  const total = all.reduce((sum, item) => sum + item.value, 0);
  const least = (SMALLEST * SMALLEST * 4 * total) / area;
  const kept = all.filter((item) => item.value >= least);
  const small = all.slice(kept.length);
  if (small.length === 1) kept.push(small[0]);
  if (small.length > 1) {
    const other = node(small.length + " others", place);
    for (const { child } of small) {
      other.children.set(child.name + "\n" + other.children.size, child);
      other.size += child.size; other.packed += child.packed; other.files += child.files; other.hits += child.hits; }
    other.isOther = true;
    kept.push({ child: other, value: other[state.unit] });
  }
  return kept;
}

function area() { return at("map").clientWidth * at("map").clientHeight; }

function draw() {
  const map = at("map"), place = here();
  map.replaceChildren();
  const box = { x: 0, y: 0, width: map.clientWidth, height: map.clientHeight };
  level(map, place, box, 0);
  crumbs(place);
}

// Tiles, and in large ones those of what they hold.
function level(map, place, box, depth) {
  for (const tile of squarify(items(place, box.width * box.height), box)) {
    const { child } = tile.item;
    const isFolder = child.children.size > 0;
    const made = element("button", { type: "button", title: words(child) });
    made.className = "tile" + (depth ? " inner" : "") + (depth % 2 ? " odd" : "") + (isFolder ? " folder" : "") + (child.hue < 0 || child.isOther ? " plain" : "") + (state.search && !child.hits ? " miss" : "");
    made.style.setProperty("--hue", Math.max(child.hue, 0));
    made.style.left = tile.x + GAP / 2 + "px"; made.style.top = tile.y + GAP / 2 + "px";
    made.style.width = Math.max(tile.width - GAP, 1) + "px"; made.style.height = Math.max(tile.height - GAP, 1) + "px";
    if (tile.width > 44 && tile.height > 18) made.append(label(child, tile));
    if (isFolder) made.addEventListener("click", () => go(child)); else made.tabIndex = -1;
    map.append(made);
    const title = depth ? TITLE - 3 : TITLE;
    if (depth < DEEPEST && isFolder && tile.width > 60 && tile.height > 60) {
      level(map, child, { x: tile.x + 3, y: tile.y + title, width: tile.width - 6, height: tile.height - title - 3 }, depth + 1);
    }
  }
}

function label(child, tile) {
  const text = element("span", {}, child.name);
  if (tile.width > 110) text.append(element("i", {}, bytes(child[state.unit])));
  return text;
}

// What a tile says of itself when it is pointed at.
function words(child) {
  const name = child.path || child.name;
  const files = child.path || child.isOther ? "" : "\n" + count(child.files, "file");
  return name + files + "\n" + bytes(child.size) + " unpacked, " + bytes(child.packed) + " zipped";
}

function count(number, noun) { return number + " " + noun + (number === 1 ? "" : "s"); }

function trail(place) {
  const names = [];
  for (let up = place; up && up !== root; up = up.parent) names.unshift(up.name);
  return names;
}

function go(place) { state.place = trail(place); write(); draw(); }

function crumbs(place) {
  const line = [];
  for (let up = place; up; up = up.parent) line.unshift(up);
  at("crumbs").replaceChildren();
  line.forEach((step, index) => {
    const name = step === root ? data.artifacts[state.artifact].name : step.name;
    const isLast = index === line.length - 1;
    const made = isLast ? element("b", {}, name) : element("button", { type: "button", onclick: () => go(step) }, name);
    at("crumbs").append(made, isLast ? " " + bytes(step.size) + " unpacked, " + bytes(step.packed) + " zipped, " + count(step.files, "file") : "›");
  });
}

function table(name, heads, rows, isWide) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { class: text.startsWith(" ") ? "number" : "" }, text.trim())));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell, index) => element("td", { class: heads[index].startsWith(" ") ? "number" : "" }, cell))));
  const made = element("section", { class: isWide ? "wide" : "" }, element("h2", {}, name));
  made.append(element("div", { class: "rows", tabIndex: 0 }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))));
  return made;
}

function facts(artifact) {
  const before = artifact.previous;
  const fact = (name, text, more) => element("div", {}, element("dt", {}, name), element("dd", {}, text, element("small", {}, more ? " " + more : "")));
  const against = (now, then) => (before ? change(then, now) : "");
  at("facts").replaceChildren(
    fact("zipped", bytes(artifact.size), against(artifact.size, before && before.size)),
    fact("unpacked", bytes(artifact.unpacked_size), against(artifact.unpacked_size, before && before.unpacked_size)),
    fact("files", String(artifact.files.length)),
    fact("packages", String(artifact.packages.length)),
    fact("left out", bytes(artifact.left_out.reduce((sum, [, one]) => sum + one.size, 0))),
    fact(artifact.kind, artifact.arch),
  );
}

function matches(artifact) {
  const found = artifact.files.map(([path, owner, size, packed]) => ({ path, owner: artifact.owners[owner][0], size, packed })).filter(isHit);
  const sum = (unit) => found.reduce((all, one) => all + one[unit], 0);
  found.sort((left, right) => right[state.unit] - left[state.unit]);
  const name = found.length ? count(found.length, "file") + " found: " + bytes(sum("size")) + " unpacked, " + bytes(sum("packed")) + " zipped" : "nothing is found";
  const rows = found.slice(0, LISTED).map((one) => [marked(one.path), marked(one.owner), bytes(one.size), bytes(one.packed)]);
  if (found.length > LISTED) rows.push(["and " + (found.length - LISTED) + " more", "", "", ""]);
  const made = table(name, ["file", "of", " unpacked", " zipped"], rows, true);
  made.id = "matches";
  return made;
}

// A text with the words that were searched for marked.
function marked(text) {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const line = element("span", {});
  const low = text.toLowerCase();
  let from = 0;
  // Letters whose lower case is longer would move the marks.
  while (low.length === text.length && from < text.length) {
    const hits = words.map((word) => [low.indexOf(word, from), word.length]).filter(([start]) => start >= 0).sort((a, b) => a[0] - b[0] || b[1] - a[1]);
    if (!hits.length) break;
    const [start, length] = hits[0];
    line.append(text.slice(from, start), element("mark", {}, text.slice(start, start + length)));
    from = start + length;
  }
  line.append(text.slice(from));
  return line;
}

// What is another than in the build before.
function comparison(artifact) {
  const before = artifact.previous;
  if (!before) return [];
  const old = new Map(before.packages.map((one) => [one.name, one]));
  const rows = [];
  const push = (name, versions, then, now, kind) => rows.push([Math.abs(now - then), [name, element("span", { class: kind }, versions), bytes(then), bytes(now), change(then, now)]]);
  for (const one of artifact.packages) {
    const then = old.get(one.name);
    old.delete(one.name);
    if (!then) push(one.name, "+ " + one.version, 0, one.kept.size, "bad");
    else if (then.version !== one.version) push(one.name, then.version + " → " + one.version, then.kept.size, one.kept.size, "");
    else if (then.kept.size !== one.kept.size) push(one.name, one.version, then.kept.size, one.kept.size, "faint");
  }
  for (const one of old.values()) push(one.name, "- " + one.version, one.kept.size, 0, "good");
  rows.sort((left, right) => right[0] - left[0]);
  const cells = rows.map((row) => row[1]);
  cells.push(["all of it", "", bytes(before.unpacked_size), bytes(artifact.unpacked_size), change(before.unpacked_size, artifact.unpacked_size)]);
  cells.push(["the zip", "", bytes(before.size), bytes(artifact.size), change(before.size, artifact.size)]);
  const made = table("Since the build before", ["package", "version", " before", " now", " change"], cells, false);
  made.id = "comparison";
  return [made];
}

function findings(artifact) {
  if (!artifact.findings.length) return [];
  const rows = artifact.findings.map((one) => {
    const about = element("span", {}, one.message);
    if (one.path) about.append(element("small", {}, one.path + (one.owner ? " of " + one.owner : "")));
    if (one.details) about.append(element("pre", {}, one.details));
    if (one.hint) about.append(element("small", {}, one.hint));
    return [element("span", { class: one.severity === "error" ? "word bad" : "word faint" }, one.severity), about];
  });
  const made = table("Findings of the checks", ["", "what"], rows, false);
  made.id = "findings";
  return [made];
}

function tables() {
  const artifact = data.artifacts[state.artifact];
  const packages = artifact.packages.map((one) => [one.kept.size, [one.name + " " + one.version, String(one.kept.files), bytes(one.kept.size), bytes(one.packed_size)]]);
  packages.sort((left, right) => right[0] - left[0]);
  const files = [...artifact.files].sort((left, right) => right[2] - left[2]).slice(0, LISTED);
  const rules = [...artifact.left_out].sort((left, right) => right[1].size - left[1].size);
  at("tables").replaceChildren(
    ...(state.search ? [matches(artifact)] : []),
    ...findings(artifact),
    ...comparison(artifact),
    ...(packages.length ? [table("Packages", ["package", " files", " unpacked", " zipped"], packages.map((row) => row[1]), false)] : []),
    table("Largest files", ["file", " unpacked", " zipped"], files.map(([path, owner, size, packed]) => [element("span", {}, path, element("small", {}, artifact.owners[owner][0])), bytes(size), bytes(packed)]), false),
    ...(rules.length ? [table("Left out", ["rule", " files", " unpacked"], rules.map(([rule, sum]) => [rule, String(sum.files), bytes(sum.size)]), false)] : []),
  );
}

// The address says what is shown, so that it can be handed on.
function write() {
  const words = new URLSearchParams();
  if (state.artifact) words.set("artifact", String(state.artifact));
  if (state.unit !== "size") words.set("unit", state.unit);
  if (state.search) words.set("search", state.search);
  for (const name of state.place) words.append("in", name);
  history.replaceState(null, "", "#" + words);
}

function read() {
  const words = new URLSearchParams(location.hash.slice(1));
  const artifact = Number(words.get("artifact"));
  state.artifact = data.artifacts[artifact] ? artifact : 0;
  state.unit = words.get("unit") === "packed" ? "packed" : "size";
  state.search = (words.get("search") || "").trim();
  state.place = words.getAll("in");
}

function show() {
  const artifact = data.artifacts[state.artifact];
  root = grow(artifact);
  seek(root);
  at("artifact").value = String(state.artifact);
  if (at("search").value.trim() !== state.search) at("search").value = state.search;
  for (const button of at("units").children) button.setAttribute("aria-pressed", String(button.dataset.unit === state.unit));
  facts(artifact);
  draw();
  tables();
}

data.artifacts.forEach((artifact, index) => {
  const isTwice = data.artifacts.some((other, at) => at !== index && other.name === artifact.name);
  at("artifact").append(element("option", { value: String(index) }, artifact.name + (isTwice ? " (" + artifact.arch + ")" : "")));
});
at("artifact").addEventListener("change", (event) => { state.artifact = Number(event.target.value); state.place = []; write(); show(); });
let waiting;
function search() {
  clearTimeout(waiting);
  state.search = at("search").value.trim();
  write(); seek(root); draw(); tables();
}
// Whoever types fast is not waited for after each letter.
at("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 80); });
for (const button of at("units").children) button.addEventListener("click", () => { state.unit = button.dataset.unit; write(); show(); });
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  // In the field, it empties it: a browser's own way with it, where it has one.
  if (event.target === at("search") && at("search").value) { at("search").value = ""; search(); return; }
  if (!state.place.length) return;
  state.place.pop(); write(); draw();
});
addEventListener("hashchange", () => { read(); show(); });
addEventListener("resize", draw);
read();
if (data.artifacts.length) show();

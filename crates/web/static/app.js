// What every page does: live updates, dialogs and forms over the API, the theme, keys, row links.
import { morphChildren } from "./morph.js";
import { startLog } from "./log.js";

const main = document.querySelector("main");
const csrf = document.querySelector("meta[name=csrf]").content;

// ---- Messages ----
let toastTimer = 0;
function toast(text, isBad = false) {
  let box = document.querySelector(".toast");
  if (!box) {
    box = document.createElement("div");
    box.className = "toast";
    box.setAttribute("role", "status");
    document.body.append(box);
  }
  box.classList.toggle("bad", isBad);
  box.textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.remove(), isBad ? 8000 : 3500);
}

// ---- The API ----
function wordsOf(detail) {
  if (typeof detail === "string") return detail;
  if (Array.isArray(detail)) {
    return detail.map((one) => `${(one.loc || []).slice(1).join(".")}: ${one.msg || JSON.stringify(one)}`).join("\n");
  }
  return (detail && detail.message) || JSON.stringify(detail);
}

async function call(method, path, body) {
  const response = await fetch(path, {
    method,
    credentials: "same-origin",
    headers: { "Content-Type": "application/json", "X-Gust-Csrf": csrf, Accept: "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    answer = null;
  }
  if (!response.ok) throw new Error(answer && answer.detail ? wordsOf(answer.detail) : `${response.status} ${response.statusText}`);
  return answer;
}

// ---- Live updates ----
const STEP_MS = 600;
let isFetching = false;
let isWanted = false;
let lastText = "";

async function refresh() {
  if (isFetching || document.hidden) {
    isWanted = true;
    return;
  }
  isFetching = true;
  isWanted = false;
  try {
    const response = await fetch(location.href, { credentials: "same-origin", headers: { Accept: "text/fragment" } });
    if (response.ok && response.headers.get("X-Gust-Fragment") === "1") {
      const text = await response.text();
      if (text !== lastText) {
        lastText = text;
        const template = document.createElement("template");
        template.innerHTML = text;
        morphChildren(main, template.content);
        dress();
      }
    }
  } catch {
    // The event stream shows whether the server is there; the next message tries again.
  }
  setTimeout(() => {
    isFetching = false;
    if (isWanted) refresh();
  }, STEP_MS);
}

function listen() {
  const url = main.dataset.events;
  if (!url) return;
  const lamp = document.querySelector(".live");
  let source = null;
  const open = () => {
    source = new EventSource(url);
    source.onopen = () => {
      lamp.className = "live on";
      lamp.title = "Live: this page follows changes";
      // What changed between the page's own fetch, or a lost connection, and this moment was not heard.
      refresh();
    };
    source.onerror = () => {
      lamp.className = "live off";
      lamp.title = "The server does not answer; trying again";
    };
    source.addEventListener("change", refresh);
  };
  const close = () => {
    if (source) source.close();
    source = null;
  };
  // Browsers keep few connections to one server: a tab at which nobody looks gives its own back.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else if (!source) open();
  });
  addEventListener("pagehide", close);
  // A page that comes back from the browser's cache of pages goes on.
  addEventListener("pageshow", () => {
    if (!source && !document.hidden) open();
  });
  if (!document.hidden) open();
}

// ---- What is derived on the client, again after every update ----
function readSet(name) {
  try {
    return new Set(JSON.parse(localStorage.getItem(name) || "[]"));
  } catch {
    return new Set();
  }
}

function collapseGroups() {
  for (const table of document.querySelectorAll("table.grid[data-dag]")) {
    const closed = readSet(`gust-closed:${table.dataset.dag}`);
    const hiddenUnder = new Map();
    for (const row of table.tBodies[0] ? table.tBodies[0].rows : []) {
      const parent = row.dataset.parent;
      const isHidden = parent !== undefined && (hiddenUnder.get(parent) || closed.has(parent));
      row.hidden = Boolean(isHidden);
      const group = row.dataset.group;
      if (group !== undefined) {
        hiddenUnder.set(group, isHidden || closed.has(group));
        const button = row.querySelector("button.group");
        if (button) button.setAttribute("aria-expanded", String(!closed.has(group)));
      }
    }
  }
}

function toggleGroup(button) {
  const table = button.closest("table");
  const name = `gust-closed:${table.dataset.dag}`;
  const closed = readSet(name);
  const group = button.closest("tr").dataset.group;
  if (!closed.delete(group)) closed.add(group);
  try {
    localStorage.setItem(name, JSON.stringify([...closed]));
  } catch {
    // Private windows may refuse; the group then opens again at the next update.
  }
  collapseGroups();
}

const UNITS = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
function relative(seconds) {
  const size = Math.abs(seconds);
  const [unit, name] = UNITS.find(([unit]) => size >= unit) || [1, "s"];
  const text = `${Math.floor(size / unit)}${name}`;
  return seconds > 0 ? `in ${text}` : `${text} ago`;
}

function tick() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-rel]")) {
    const text = relative((Date.parse(time.dateTime) - now) / 1000);
    if (time.textContent !== text) time.textContent = text;
  }
  for (const span of document.querySelectorAll("[data-since]")) {
    const seconds = Math.max(0, Math.floor((now - Date.parse(span.dataset.since)) / 1000));
    const text = seconds < 60 ? `${seconds} s` : seconds < 3600 ? `${Math.floor(seconds / 60)}m ${String(seconds % 60).padStart(2, "0")}s` : `${Math.floor(seconds / 3600)}h ${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")}m`;
    if (span.textContent !== text) span.textContent = text;
  }
  const clock = document.querySelector(".clock");
  if (clock) clock.textContent = `${new Date(now).toISOString().slice(11, 19)} UTC`;
}

function dress() {
  collapseGroups();
  startLog();
  tick();
}

// ---- Dialogs and forms ----
async function openDialog(url) {
  const response = await fetch(url, { credentials: "same-origin", headers: { Accept: "text/html" } });
  if (!response.ok) {
    toast(`${response.status} ${response.statusText}`, true);
    return;
  }
  const dialog = document.createElement("dialog");
  const template = document.createElement("template");
  template.innerHTML = await response.text();
  dialog.append(template.content);
  showDialog(dialog);
  dialog.addEventListener("close", () => dialog.remove());
}

function showDialog(dialog) {
  if (!dialog.isConnected) document.body.append(dialog);
  const title = dialog.querySelector("h2");
  if (title) dialog.setAttribute("aria-label", title.textContent);
  dialog.showModal();
  preview(dialog.querySelector("form"));
}

function fill(form, values) {
  form.reset();
  for (const [name, value] of Object.entries(values)) {
    const field = form.elements.namedItem(name);
    if (!field) continue;
    if (field.type === "checkbox") field.checked = Boolean(value);
    else field.value = value === null ? "" : String(value);
  }
}

function bodyOf(form) {
  const body = JSON.parse(form.dataset.body || "{}");
  for (const field of form.elements) {
    if (!field.name || field.disabled) continue;
    const { kind } = field.dataset;
    const text = field.value;
    if (kind === "path") continue;
    if (field.type === "checkbox") body[field.name] = field.checked;
    else if (kind === "json") {
      try {
        body[field.name] = text.trim() ? JSON.parse(text) : {};
      } catch (error) {
        throw new Error(`${field.name} is not valid JSON: ${error.message}`);
      }
    } else if (kind === "int") {
      if (text !== "") body[field.name] = Number.parseInt(text, 10);
      else body[field.name] = null;
    } else if (kind === "date") body[field.name] = text ? new Date(`${text}Z`).toISOString() : null;
    else if (kind === "skip") {
      if (text !== "") body[field.name] = text;
    } else if (kind === "opt") body[field.name] = text === "" ? null : text;
    else body[field.name] = text;
  }
  return body;
}

function pathOf(form) {
  return form.dataset.path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(form.elements.namedItem(name).value));
}

function showError(form, text) {
  const output = form.querySelector("output.error");
  if (!output) {
    if (text) toast(text, true);
    return;
  }
  output.hidden = !text;
  output.textContent = text;
}

async function submit(form) {
  showError(form, "");
  const button = form.querySelector("button[type=submit]");
  if (button) button.disabled = true;
  try {
    const hasBody = form.dataset.method !== "DELETE";
    const body = hasBody ? bodyOf(form) : undefined;
    let path = pathOf(form);
    if (form.dataset.mask !== undefined) {
      const changed = Object.keys(body).filter((name) => !form.dataset.path.includes(`{${name}}`));
      path += `?${changed.map((name) => `update_mask=${encodeURIComponent(name)}`).join("&")}`;
    }
    const answer = await call(form.dataset.method, path, body);
    const dialog = form.closest("dialog");
    if (dialog) dialog.close();
    const then = form.dataset.then || "";
    if (form.dataset.go) {
      location.href = form.dataset.go;
    } else if (then && answer) {
      location.href = then.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(answer[name]));
    } else {
      if (form.dataset.done) toast(form.dataset.done);
      refresh();
    }
  } catch (error) {
    showError(form, error.message);
  } finally {
    if (button) button.disabled = false;
  }
}

let previewNumber = 0;
async function preview(form) {
  const box = form && form.querySelector(".preview");
  if (!box) return;
  const number = ++previewNumber;
  try {
    const path = form.dataset.preview || pathOf(form);
    const body = bodyOf(form);
    if ("dry_run" in body) body.dry_run = true;
    const answer = await call(form.dataset.method, path, body);
    if (number !== previewNumber) return;
    const rows = answer.task_instances || [];
    const title = document.createElement("b");
    const total = answer.total_entries ?? rows.length;
    title.textContent = total === 1 ? "1 task instance is affected" : `${total} task instances are affected`;
    const list = document.createElement("ul");
    const isOneRun = new Set(rows.map((row) => row.dag_run_id)).size === 1;
    for (const row of rows.slice(0, 200)) {
      const item = document.createElement("li");
      const index = row.map_index >= 0 ? `[${row.map_index}]` : "";
      item.textContent = `${row.task_id}${index} · ${isOneRun ? "" : `${row.dag_run_id} · `}${row.state ?? "none"}`;
      list.append(item);
    }
    box.replaceChildren(title, list);
  } catch (error) {
    if (number === previewNumber) box.textContent = error.message;
  }
}

async function toggleSwitch(button) {
  const isOn = button.getAttribute("aria-checked") === "true";
  button.setAttribute("aria-checked", String(!isOn));
  try {
    await call("PATCH", button.dataset.path, { is_paused: isOn });
    refresh();
  } catch (error) {
    button.setAttribute("aria-checked", String(isOn));
    toast(error.message, true);
  }
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-dialog], [data-dialog-url], [data-close], [data-theme-toggle], .switch, button.group");
  if (target) {
    if (target.matches("[data-theme-toggle]")) {
      const isDark = getComputedStyle(document.documentElement).colorScheme === "dark";
      const theme = isDark ? "light" : "dark";
      document.documentElement.dataset.theme = theme;
      try {
        localStorage.setItem("gust-theme", theme);
      } catch {
        // It then lasts as long as the page.
      }
    } else if (target.matches("[data-close]")) target.closest("dialog").close();
    else if (target.matches(".switch")) toggleSwitch(target);
    else if (target.matches("button.group")) toggleGroup(target);
    else if (target.dataset.dialogUrl) openDialog(target.dataset.dialogUrl);
    else {
      const dialog = document.getElementById(target.dataset.dialog);
      if (target.dataset.fill) fill(dialog.querySelector("form"), JSON.parse(target.dataset.fill));
      showError(dialog.querySelector("form"), "");
      showDialog(dialog);
    }
    return;
  }
  const row = event.target.closest("tr[data-href]");
  if (row && !event.target.closest("a, button, input, label, select, summary") && !getSelection().toString()) {
    if (event.metaKey || event.ctrlKey) open(row.dataset.href);
    else location.href = row.dataset.href;
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.method) {
    event.preventDefault();
    submit(form);
  }
});

document.addEventListener("change", (event) => {
  const { form } = event.target;
  if (form && form.dataset.method) preview(form);
  else if (event.target.matches("select[data-submit]")) form.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.metaKey && !event.ctrlKey && !event.target.closest("input, textarea, select, dialog")) {
    const search = document.querySelector("input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  }
});

// On a narrow screen the sections scroll.
const here = document.querySelector(".top nav [aria-current]");
if (here) here.scrollIntoView({ block: "nearest", inline: "nearest" });
dress();
setInterval(tick, 1000);
listen();

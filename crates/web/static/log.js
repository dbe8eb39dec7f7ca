// The log of a try: lines come over an event stream as JSON and become text nodes, never markup.

const BLOCK_LINES = 200;
// What a line's own place shows, and what the page says of every line already.
const KNOWN = new Set([
  "timestamp", "level", "event", "logger", "error_detail", "exception", "loc", "filename", "lineno",
  "dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id", "ti",
]);

function span(className, text) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}

// The error that was raised comes first in `detail`, what led to it behind it; Python prints them the other way round.
function traceback(detail) {
  const lines = [];
  for (const [at, one] of [...detail.entries()].reverse()) {
    lines.push("Traceback (most recent call last):");
    for (const frame of one.frames || []) {
      lines.push(`  File "${frame.filename}", line ${frame.lineno}, in ${frame.name}`);
      if (frame.line) lines.push(`    ${frame.line}`);
    }
    lines.push(`${one.exc_type}: ${one.exc_value}`, ...(one.exc_notes || []));
    if (at > 0) {
      const how = one.is_cause ? "The above exception was the direct cause of the following exception:" : "During handling of the above exception, another exception occurred:";
      lines.push("", how, "");
    }
  }
  return lines.join("\n");
}

function fold(summary, text) {
  const details = document.createElement("details");
  details.open = true;
  const head = document.createElement("summary");
  head.textContent = summary;
  const body = document.createElement("pre");
  body.textContent = text;
  details.append(head, body);
  return details;
}

function lineOf(line) {
  const level = String(line.level || "info").toLowerCase();
  const row = document.createElement("div");
  row.className = `l lv-${level.replace(/[^a-z]/g, "")}`;
  const time = span("t", line.timestamp ? String(line.timestamp).replace("T", " ").slice(11, 23) : "");
  time.title = line.timestamp || "";
  const message = document.createElement("span");
  message.className = "m";
  if (line.logger && line.logger !== "task") message.append(span("g", `${line.logger}: `));
  const text = typeof line.event === "string" ? line.event : JSON.stringify(line.event ?? line);
  if (text.startsWith("::group::")) row.classList.add("group");
  message.append(text.replace(/^::group::/, ""));
  if (line.filename) row.title = line.lineno ? `${line.filename}:${line.lineno}` : line.filename;
  const extra = Object.entries(line).filter(([key]) => !KNOWN.has(key));
  if (extra.length) {
    const pairs = extra.map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`);
    message.append(span("x", `  ${pairs.join(" ")}`));
  }
  if (Array.isArray(line.error_detail) && line.error_detail.length) {
    const [raised] = line.error_detail;
    message.append(fold(`${raised.exc_type}: ${raised.exc_value}`, traceback(line.error_detail)));
  } else if (line.exception) {
    const trace = String(line.exception);
    message.append(fold(trace.trim().split("\n").pop(), trace));
  }
  row.append(time, span("v", level), message);
  return row;
}

function search(box, text) {
  const wanted = text.trim().toLowerCase();
  box.classList.toggle("nomatch", wanted !== "");
  let hits = 0;
  for (const row of box.querySelectorAll(".l")) {
    const isHit = wanted !== "" && row.textContent.toLowerCase().includes(wanted);
    row.classList.toggle("hit", isHit);
    if (isHit) hits += 1;
  }
  const count = document.querySelector("[data-log-count]");
  if (count) count.textContent = wanted ? `${hits} ${hits === 1 ? "line" : "lines"}` : "";
}

let shown = null;
let source = null;

/** Shows and follows the log whose address the page's log box names, if it has one; again where the box is new. */
export function startLog() {
  const box = document.querySelector("[data-log]");
  if (box === shown) return;
  if (source) source.close();
  shown = box;
  if (!box) return;
  const follow = document.querySelector("[data-log-follow]");
  const find = document.querySelector("[data-log-search]");
  let block = null;

  const own = new EventSource(box.dataset.log);
  source = own;
  const status = (text) => {
    let end = box.querySelector(".end");
    if (!end) {
      end = document.createElement("div");
      end.className = "end";
    }
    end.textContent = text;
    box.append(end);
  };
  const append = (lines) => {
    const end = box.querySelector(".end");
    if (end) end.remove();
    for (const line of lines) {
      if (line.event === "::endgroup::") continue;
      if (!block || block.childElementCount >= BLOCK_LINES) {
        block = document.createElement("div");
        block.className = "block";
        box.append(block);
      }
      block.append(lineOf(line));
    }
    if (find && find.value) search(box, find.value);
    if (!follow || follow.checked) box.scrollTop = box.scrollHeight;
  };
  status("Waiting for the first lines …");
  own.addEventListener("lines", (event) => append(JSON.parse(event.data)));
  own.addEventListener("idle", () => {
    if (!box.querySelector(".l")) status("Nothing has been logged yet.");
  });
  own.addEventListener("end", () => {
    own.close();
    status(box.querySelector(".l") ? "End of log." : "This try left no log.");
    if (follow && follow.checked) box.scrollTop = box.scrollHeight;
  });
  if (find) {
    let timer = 0;
    find.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => search(box, find.value), 120);
    });
  }
}

addEventListener("pagehide", () => {
  if (source) source.close();
});

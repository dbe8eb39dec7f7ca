// Makes a live element's children like freshly fetched ones, changing only what differs, so that focus, selection,
// scroll positions and open <details> stay. Elements with data-keep are left alone once they are there.

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "";
}

function isSame(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
}

function morphAttributes(from, to) {
  for (const { name } of [...from.attributes]) {
    const isUsers = name === "open" && ["DETAILS", "DIALOG"].includes(from.nodeName);
    if (!to.hasAttribute(name) && !isUsers) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
}

function morphNode(from, to) {
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  if (from.hasAttribute("data-keep")) return;
  morphAttributes(from, to);
  // What a person is typing or choosing is theirs.
  if (["INPUT", "TEXTAREA", "SELECT"].includes(from.nodeName)) return;
  morphChildren(from, to);
}

/** Makes `from`'s children like `to`'s. `to` is used up. */
export function morphChildren(from, to) {
  let at = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    if (at && isSame(at, wanted)) {
      morphNode(at, wanted);
      at = at.nextSibling;
      continue;
    }
    const key = keyOf(wanted);
    let found = null;
    if (key) {
      for (let other = at; other; other = other.nextSibling) {
        if (isSame(other, wanted)) {
          found = other;
          break;
        }
      }
    }
    if (found) {
      from.insertBefore(found, at);
      morphNode(found, wanted);
    } else {
      from.insertBefore(wanted, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

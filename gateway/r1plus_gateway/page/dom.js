// Small helpers for the document. Text from outside is only ever set as text.

export const find = (id) => document.getElementById(id);

export function make(tag, { text, className, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function notify(id, error) {
  const notice = find(id);
  notice.hidden = !error;
  notice.textContent = error ? `${error.message}${error.requestId ? ` (request ${error.requestId})` : ""}` : "";
}

// An entry of a list with a button that deletes it.
export function makeEntry(text, state, onDelete) {
  const button = make("button", { text: "Delete", type: "button", "aria-label": `Delete: ${text}` });
  const stateElement = make("span", { text: state, className: "hint" });
  const entry = make("li", {}, make("span", { text }), stateElement, button);
  button.addEventListener("click", async () => {
    button.disabled = true;
    if (await onDelete()) entry.remove();
    else button.disabled = false;
  });
  return { entry, setState: (value) => { stateElement.textContent = value; } };
}

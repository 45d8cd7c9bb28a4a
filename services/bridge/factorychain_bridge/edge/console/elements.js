// Elements of the page: text from users, agents and tools only ever becomes text, never markup.

/** An element with a class and children (strings become text). */
export function make(tag, className, ...children) {
  const found = document.createElement(tag);
  if (className) found.className = className;
  found.append(...children.filter((each) => each !== null && each !== undefined));
  return found;
}

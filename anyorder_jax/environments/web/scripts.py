"""Scripts: what is run inside pages.

CLOCK stands before every script of a page: time moves only when `__clock.advance(ms)` is called, and then all timers
that are due run in their order, after a frame was drawn (so that scrolling is told). So what an action leads to does
not depend on how fast the machine is.

Functions with `this` are called on an element; they return {problem} or what the caller needs.
"""

CLOCK = """
(() => {
  const RealDate = Date, start = RealDate.UTC(2026, 0, 5, 12), timers = new Map();
  const frame = window.requestAnimationFrame.bind(window), timeout = window.setTimeout.bind(window);
  let now = 0, next = 1;
  const add = (run, delay, every) => {
    timers.set(next, {run, every, due: now + Math.max(every ? 1 : 0, +delay || 0), order: next});
    return next++;
  };
  const call = (run, rest) => typeof run === 'function' ? () => run(...rest) : () => (0, eval)(String(run));
  window.setTimeout = (run, delay, ...rest) => add(call(run, rest), delay, 0);
  window.setInterval = (run, delay, ...rest) => add(call(run, rest), delay, Math.max(1, +delay || 1));
  window.requestAnimationFrame = run => add(() => run(now), 16, 0);
  window.clearTimeout = window.clearInterval = window.cancelAnimationFrame = number => { timers.delete(number); };
  window.Date = function Date(...parts) {
    if (!new.target) return new RealDate(start + now).toString();
    return parts.length ? new RealDate(...parts) : new RealDate(start + now);
  };
  const {parse, UTC, prototype} = RealDate;
  Object.assign(window.Date, {parse, UTC, prototype, now: () => start + now});
  RealDate.prototype.constructor = window.Date;
  performance.now = () => now;
  const drawn = () => new Promise(then => { frame(() => timeout(then, 0)); timeout(then, 500); });
  const later = ms => new Promise(then => timeout(then, ms));
  window.__clock = {drawn, later, async advance(ms) {
    await drawn();
    const end = now + ms;
    for (let turns = 0; turns < 20000; turns++) {
      let first = null;
      for (const [number, timer] of timers)
        if (timer.due <= end && (!first || timer.due < first[1].due ||
            (timer.due === first[1].due && timer.order < first[1].order))) first = [number, timer];
      if (!first) break;
      const [number, timer] = first;
      now = Math.max(now, timer.due);
      if (timer.every) { timer.due = now + timer.every; timer.order = next++; } else timers.delete(number);
      try { timer.run(); } catch (error) { console.error(error); }
      await null;  // promises that it kept
    }
    now = end;
    for (let i = 0; i < frames.length; i++)
      try { await frames[i].__clock.advance(ms); } catch (foreign) { /* of another site */ }
  }};
  // a clipboard of the page's own: nothing is pasted that another episode copied
  let copied = '';
  const selected = () => {
    const field = document.activeElement;
    return field && typeof field.selectionStart === 'number' && field.selectionEnd > field.selectionStart
      ? field.value.slice(field.selectionStart, field.selectionEnd) : String(getSelection());
  };
  const on = (name, then) => window.addEventListener(name, event => { event.preventDefault(); then(); }, true);
  on('copy', () => { copied = selected(); });
  on('cut', () => { copied = selected(); document.execCommand('delete'); });
  on('paste', () => { if (copied) document.execCommand('insertText', false, copied); });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync('* { transition: none !important; animation: none !important; scroll-behavior: auto !important; }');
  document.adoptedStyleSheets = [sheet];
})();
"""

PRELOAD = """(async () => {
  const read = sheet => { try { return [...sheet.cssRules]; } catch { return []; } };
  const rules = [...document.styleSheets].flatMap(read);
  const urls = rules.flatMap(rule => [...rule.cssText.matchAll(/url\\("?([^")]+)/g)].map(found => found[1]));
  const images = [...new Set(urls)].map(url => Object.assign(new Image(), {src: url}));
  window.__images = images;
  const all = Promise.all(images.map(image => image.decode().catch(() => null)));
  if (images.length && window.__clock) await Promise.race([all, __clock.later(2000)]);
})()"""
"""Loads the pictures of all styles: one that a button has under the mouse alone would come while it is pressed."""

PLACE = """async function(isPressed) {
  if (!this.isConnected) return {problem: 'is gone'};
  if (isPressed && this.disabled) return {problem: 'is disabled'};
  const find = () => {
    let top = null;
    for (const r of [...this.getClientRects()].filter(r => r.width > 0 && r.height > 0).slice(0, 8)) {
      for (const [across, down] of [[5, 5], [1, 1], [9, 1], [1, 9], [9, 9], [5, 1], [1, 5], [9, 5], [5, 9]]) {
        const x = r.left + r.width * across / 10, y = r.top + r.height * down / 10;
        const hit = document.elementFromPoint(x, y), label = hit && hit.closest('label');
        if (hit && (this.contains(hit) || (label && (label.control === this || label.contains(this)))))
          return {x, y, r};
        top = top || hit;
      }
    }
    return {top};
  };
  const has_size = [...this.getClientRects()].some(r => r.width > 0 && r.height > 0);
  if (!has_size || getComputedStyle(this).visibility === 'hidden')
    return {problem: 'is not visible'};
  let found = find();
  if (!found.r) {
    this.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
    if (window.__clock) for (const _ of [1, 2]) await __clock.drawn();  // else a click may meet what was there before
    found = find();
  }
  if (found.r) return {x: found.x, y: found.y, width: found.r.width, height: found.r.height};
  const top = found.top;
  if (!top || top.contains(this)) return {problem: 'cannot be scrolled into view'};
  return {problem: `is covered by ${top.tagName.toLowerCase()}${top.id ? '#' + top.id : ''}`};
}"""

READY_TO_FILL = """function(text) {
  if (!this.isConnected) return {problem: 'is gone'};
  const tag = this.tagName;
  if (tag !== 'TEXTAREA' && tag !== 'INPUT' && !this.isContentEditable) return {problem: 'is no field for text'};
  if (this.disabled || this.readOnly) return {problem: 'cannot be changed'};
  if (!this.getClientRects().length) return {problem: 'is not visible'};
  const typed = ['date', 'time', 'month', 'week', 'datetime-local', 'color', 'range'];
  if (tag === 'INPUT' && ['checkbox', 'radio', 'button', 'submit', 'file', 'image', 'reset'].includes(this.type))
    return {problem: `is no field for text but a ${this.type}`};
  this.focus();
  if (tag === 'INPUT' && typed.includes(this.type)) {
    this.value = text;
    if (this.value !== text) return {problem: `does not take ${JSON.stringify(text)} as ${this.type}`};
    for (const name of ['input', 'change']) this.dispatchEvent(new Event(name, {bubbles: true}));
    return {is_done: true};
  }
  if (this.select) this.select();
  else { const all = document.createRange(); all.selectNodeContents(this);
         getSelection().removeAllRanges(); getSelection().addRange(all); }
  return {is_done: false};
}"""

SELECT = """function(wanted) {
  if (this.tagName !== 'SELECT') return {problem: 'is no list of options'};
  if (this.disabled) return {problem: 'is disabled'};
  const options = [...this.options], found = wanted.map(
    w => options.find(o => o.value === w) || options.find(o => o.label.trim() === w.trim()));
  const missing = wanted.filter((_, i) => !found[i]);
  if (missing.length) return {problem: `has no option ${JSON.stringify(missing[0])}`};
  if (found.length > 1 && !this.multiple) return {problem: 'takes one option'};
  this.focus();
  for (const option of options) option.selected = found.includes(option);
  for (const name of ['input', 'change']) this.dispatchEvent(new Event(name, {bubbles: true}));
  return {};
}"""

FOCUS = """function() {
  if (!this.isConnected) return {problem: 'is gone'};
  this.focus();
  return {};
}"""

IS_CHECKED = """function() {
  if (!['checkbox', 'radio'].includes(this.type)) return {problem: 'is no checkbox'};
  return {is_checked: this.checked};
}"""

SCROLL = """(([x, y, dx, dy]) => {
  let box = document.elementFromPoint(x, y);
  const moves = e => {
    const before = [e.scrollLeft, e.scrollTop];
    e.scrollBy(dx, dy);
    return e.scrollLeft !== before[0] || e.scrollTop !== before[1];
  };
  while (box && !(getComputedStyle(box).overflow !== 'visible' && moves(box))) box = box.parentElement;
  if (!box) scrollBy(dx, dy);
})(%s)"""

'use strict';
(() => {
const $ = selector => document.querySelector(selector);
const details = JSON.parse($('#data').textContent);
const rows = [...document.querySelectorAll('.row')];
const levels = rows.map(row => Number(row.getAttribute('aria-level')));
const sections = rows.map(row => row.closest('section'));
const place = new Map(rows.map((row, i) => [row, i]));
const problems = row => row.classList.contains('problem');
const waits = row => row.classList.contains('wait');
let chosen = -1;
let back = [];
let found = [];

// --- the tree ---

/** The first row after `i` that is not below it. */
function endOf(i) {
  let end = i + 1;
  while (end < rows.length && levels[end] > levels[i] && sections[end] === sections[i]) end++;
  return end;
}

function parentOf(i) {
  for (let above = i - 1; above >= 0 && sections[above] === sections[i]; above--) {
    if (levels[above] < levels[i]) return rows[above].classList.contains('span') ? above : parentOf(above);
  }
  return -1;
}

function fold(i, folded) {
  if (!rows[i].hasAttribute('aria-expanded')) return;
  rows[i].setAttribute('aria-expanded', String(!folded));
  const end = endOf(i);
  for (let below = i + 1; below < end; below++) {
    rows[below].hidden = folded;
    // What is folded below stays so.
    if (!folded && rows[below].getAttribute('aria-expanded') === 'false') {
      const rest = endOf(below);
      for (let deeper = below + 1; deeper < rest; deeper++) rows[deeper].hidden = true;
      below = rest - 1;
    }
  }
}

function reveal(i) {
  for (let above = parentOf(i); above >= 0; above = parentOf(above)) {
    if (rows[above].getAttribute('aria-expanded') === 'false') fold(above, false);
  }
}

function next(i, step, wanted = () => true) {
  for (let at = i + step; at >= 0 && at < rows.length; at += step) if (!rows[at].hidden && wanted(rows[at])) return at;
  return -1;
}

/** Also among what is folded away. */
function nextOf(i, step, wanted) {
  for (let at = i + step; at >= 0 && at < rows.length; at += step) if (wanted(rows[at])) return at;
  return -1;
}

// --- the chosen row ---

function choose(i, { focus = true, scroll = true } = {}) {
  if (i < 0 || i >= rows.length) return;
  if (chosen >= 0) {
    rows[chosen].removeAttribute('aria-selected');
    rows[chosen].tabIndex = -1;
  }
  chosen = i;
  reveal(i);
  const row = rows[i];
  row.setAttribute('aria-selected', 'true');
  row.tabIndex = 0;
  if (focus) row.focus({ preventScroll: true });
  if (scroll) row.scrollIntoView({ block: 'nearest' });
  if (row.id) history.replaceState(null, '', '#' + row.id);
  showDetails(i);
}

function follow(id) {
  const target = document.getElementById(id);
  const row = target && (target.classList.contains('row') ? target : target.querySelector('.row'));
  if (!row) return;
  if (chosen >= 0) back.push(chosen);
  choose(place.get(row));
  row.scrollIntoView({ block: 'center' });
}

function element(name, text, more = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, more);
}

function reference(to) {
  const id = 's-' + to.trace + '-' + to.span;
  const text = to.name || 'span ' + to.span + ', trace ' + to.trace;
  return document.getElementById(id) ? element('a', text, { href: '#' + id }) : element('span', text);
}

function list(into, title, pairs) {
  const all = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  if (!all.length) return;
  if (title) into.append(element('h3', title));
  const dl = element('dl');
  for (const [name, value] of all) {
    const dd = element('dd');
    dd.append(value);
    dl.append(element('dt', name), dd);
  }
  into.append(dl);
}

/** Nanoseconds since the epoch, as a date with all its digits. */
function date(nanos) {
  const time = BigInt(nanos);
  const seconds = new Date(Number(time / 1000000n)).toISOString().slice(0, 19);
  return time === 0n ? null : seconds.replace('T', ' ') + '.' + String(time % 1000000000n).padStart(9, '0') + ' UTC';
}

function showDetails(i) {
  let about = i;
  while (about >= 0 && !details[about]) about--;
  const it = details[about];
  const panel = $('#details');
  panel.replaceChildren();
  if (!it) return;
  panel.append(element('h2', it.name));
  if (it.wait) {
    list(panel, '', [['waited', it.duration + ' ' + it.wait], ['topic', it.topic],
      ['messages', it.messages > 1 ? String(it.messages) + ', of which this is the longest wait' : null],
      ['measured', it.measured ? 'by the sender’s or the broker’s clock' : 'no: the gap between two spans, as good as their clocks'],
      ['since', date(it.start)]]);
    return;
  }
  panel.append(element('small', it.service + ' · ' + it.kind + (it.attempt ? ' · attempt ' + it.attempt : '')));
  if (it.status) panel.append(element('p', '✗ ' + it.status, { className: 'bad' }));
  for (const finding of it.findings) panel.append(element('p', '✗ ' + finding, { className: 'bad' }));
  if (it.more_findings) panel.append(element('p', it.more_findings + ' more are not shown', { className: 'bad' }));
  list(panel, '', [['took', it.duration], ['began', it.offset === '0' ? 'at the start' : it.offset + ' after the start'], ['at', date(it.start)],
    ['parent', it.parent && reference(it.parent)], ['span', it.span]]);
  const links = (title, all) => {
    if (!all.length) return;
    panel.append(element('h3', title));
    const ul = element('ul');
    for (const link of all) {
      const li = element('li');
      li.append(reference(link));
      list(li, '', Object.entries(link.attributes || {}));
      ul.append(li);
    }
    panel.append(ul);
  };
  links('Links to', it.links);
  if (it.dropped_links) panel.append(element('p', it.dropped_links + ' more were dropped by the SDK', { className: 'bad' }));
  links('Linked from', it.linked_from);
  if (it.more_linked_from) panel.append(element('p', it.more_linked_from + ' more are not shown'));
  list(panel, 'Attributes', Object.entries(it.attributes));
  for (const event of it.events) list(panel, 'Event ' + event.name + ' at ' + event.at, Object.entries(event.attributes));
}

// --- the axis ---

function units(nanos) {
  for (const [size, name] of [[3600e9, ' h'], [60e9, ' min'], [1e9, ' s'], [1e6, ' ms'], [1e3, ' µs']]) {
    if (nanos >= size) return Number((nanos / size).toPrecision(4)) + name;
  }
  return Math.round(nanos) + ' ns';
}

/** How wide the axis is; beside it is room for the last times. */
const axis = ticks => Math.max(ticks.clientWidth - 72, 1);

function zoom(section, from, span) {
  span = Math.min(Math.max(span, 1e-6), 1);
  from = Math.min(Math.max(from, 0), 1 - span);
  section.style.setProperty('--from', from);
  section.style.setProperty('--span', span);
  section.view = { from, span };
  const length = Number(section.dataset.length) || 1;
  const ticks = section.querySelector('.ticks');
  const rough = Math.max(span * length / Math.max(2, axis(ticks) / 120), 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(step => step >= rough);
  ticks.replaceChildren();
  for (let time = Math.ceil(from * length / step) * step; time <= (from + span) * length; time += step) {
    const tick = element('span', time === 0 ? '0' : units(time), { className: 'tick' });
    tick.style.left = (time / length - from) / span * axis(ticks) + 'px';
    ticks.append(tick);
  }
}

const viewOf = section => section.view || { from: 0, span: 1 };

function zoomBy(factor) {
  if (chosen < 0) return;
  const { from, span } = viewOf(sections[chosen]);
  const bar = barOf(chosen);
  const centre = bar && bar.a + bar.w / 2 >= from && bar.a <= from + span ? bar.a + bar.w / 2 : from + span / 2;
  zoom(sections[chosen], centre - span * factor / 2, span * factor);
}

function barOf(i) {
  const bar = rows[i].querySelector('.bar');
  return bar && { a: Number(bar.style.getPropertyValue('--a')), w: Number(bar.style.getPropertyValue('--w')) };
}

function zoomTo(i) {
  const bar = i >= 0 && barOf(i);
  if (bar) zoom(sections[i], bar.a - bar.w * 0.1, Math.max(bar.w * 1.2, 1e-6));
}

function zoomByDragging(ticks) {
  const section = ticks.closest('section');
  const at = event => Math.min(Math.max((event.clientX - ticks.getBoundingClientRect().left) / axis(ticks), 0), 1);
  ticks.addEventListener('pointerdown', down => {
    const brush = element('div', undefined, { className: 'brush' });
    const first = at(down);
    ticks.append(brush);
    ticks.setPointerCapture(down.pointerId);
    const move = event => {
      brush.style.left = Math.min(first, at(event)) * axis(ticks) + 'px';
      brush.style.width = Math.abs(at(event) - first) * axis(ticks) + 'px';
    };
    const end = event => {
      ticks.removeEventListener('pointermove', move);
      const { from, span } = viewOf(section);
      const [low, high] = [Math.min(first, at(event)), Math.max(first, at(event))];
      brush.remove();
      if (event.type === 'pointerup' && high - low > 0.005) zoom(section, from + low * span, (high - low) * span);
    };
    ticks.addEventListener('pointermove', move);
    ticks.addEventListener('pointerup', end, { once: true });
    ticks.addEventListener('pointercancel', end, { once: true });
  });
  ticks.addEventListener('dblclick', () => zoom(section, 0, 1));
}

// --- searching ---

const texts = [];
function textOf(i) {
  return texts[i] ??= (rows[i].textContent + '\n' + (details[i] ? JSON.stringify(details[i]) : '')).toLowerCase();
}

function search(words) {
  for (const i of found) rows[i].classList.remove('found');
  const wanted = words.trim().toLowerCase();
  found = wanted ? rows.map((_, i) => i).filter(i => textOf(i).includes(wanted)) : [];
  for (const i of found) rows[i].classList.add('found');
  $('#count').textContent = wanted ? found.length + ' found' : '';
}

function nextFound(step) {
  if (!found.length) return;
  const beyond = step > 0 ? found.find(i => i > chosen) : found.findLast(i => i < chosen);
  choose(beyond ?? found.at(step > 0 ? 0 : -1), { focus: false });
}

// --- keys ---

function foldAll() {
  const open = rows.some(row => row.getAttribute('aria-expanded') === 'true');
  // From below, so that what is folded within stays so.
  for (let i = rows.length - 1; i >= 0; i--) {
    if (rows[i].hasAttribute('aria-expanded')) rows[i].setAttribute('aria-expanded', String(!open));
    rows[i].hidden = open && levels[i] > 1;
  }
  if (chosen >= 0 && rows[chosen].hidden) {
    let root = chosen;
    while (parentOf(root) >= 0) root = parentOf(root);
    choose(root);
  }
}

function left() {
  if (rows[chosen].getAttribute('aria-expanded') === 'true') fold(chosen, true);
  else choose(parentOf(chosen));
}

function right() {
  if (rows[chosen].getAttribute('aria-expanded') === 'false') fold(chosen, false);
  else if (endOf(chosen) > chosen + 1) choose(chosen + 1);
}

function dark() {
  const root = document.documentElement;
  const is = root.style.colorScheme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  root.style.colorScheme = is === 'dark' ? 'light' : 'dark';
}

const keys = {
  ArrowDown: () => choose(next(chosen, 1)), j: () => choose(next(chosen, 1)),
  ArrowUp: () => choose(next(chosen, -1)), k: () => choose(next(chosen, -1)),
  ArrowLeft: left, ArrowRight: right,
  Home: () => choose(next(-1, 1)), End: () => choose(next(rows.length, -1)),
  n: () => choose(nextOf(chosen, 1, problems)), N: () => choose(nextOf(chosen, -1, problems)),
  w: () => choose(nextOf(chosen, 1, waits)), W: () => choose(nextOf(chosen, -1, waits)),
  l: () => { const link = $('#details a') && ($('#details ul a') || $('#details a')); if (link) follow(link.hash.slice(1)); },
  Backspace: () => { if (back.length) choose(back.pop()); },
  '/': () => $('#search').focus(),
  z: () => zoomTo(chosen), '+': () => zoomBy(0.5), '=': () => zoomBy(0.5), '-': () => zoomBy(2),
  0: () => chosen >= 0 && zoom(sections[chosen], 0, 1),
  e: foldAll, d: dark, '?': () => $('#help').showModal(),
  Enter: () => $('#details').focus(),
};

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $('#help').open) return;
  if (event.target.id === 'search') {
    if (event.key === 'Enter') nextFound(event.shiftKey ? -1 : 1);
    if (event.key === 'Escape') { event.target.value = ''; search(''); choose(Math.max(chosen, 0)); }
    return;
  }
  // Buttons and links keep their own keys.
  if (event.target.closest('button,a') && event.key === 'Enter') return;
  if (event.target.id === 'details') {
    if (event.key === 'Enter' || event.key === 'Escape') { event.preventDefault(); choose(chosen); }
    if (['ArrowDown', 'ArrowUp', 'Home', 'End'].includes(event.key)) return;
  }
  const key = Object.hasOwn(keys, event.key) ? keys[event.key] : null;
  if (!key || event.target.id === 'details' && event.key === 'Enter') return;
  event.preventDefault();
  key();
});

// --- the beginning ---

document.addEventListener('click', event => {
  const link = event.target.closest('a[href^="#"]');
  if (link) {
    event.preventDefault();
    follow(link.hash.slice(1));
    return;
  }
  const row = event.target.closest('.row');
  if (!row) return;
  const i = place.get(row);
  const name = row.querySelector('.name');
  const indent = name ? parseFloat(getComputedStyle(name).paddingLeft) : 0;
  if (row.hasAttribute('aria-expanded') && event.clientX - row.getBoundingClientRect().left < indent) {
    fold(i, row.getAttribute('aria-expanded') === 'true');
  }
  choose(i, { scroll: false });
});
document.addEventListener('dblclick', event => {
  const row = event.target.closest('.row');
  if (row) zoomTo(place.get(row));
});

function begin() {
  for (let i = 0; i < rows.length; i++) {
    rows[i].tabIndex = -1;
    const below = endOf(i) - i - 1;
    if (below > 0) {
      rows[i].setAttribute('aria-expanded', 'true');
      rows[i].querySelector('.name').dataset.folded = below;
    }
  }
  const button = (text, does, title) => {
    const made = element('button', text, { title, type: 'button' });
    made.addEventListener('click', does);
    return made;
  };
  const input = element('input', undefined, { id: 'search', type: 'search', placeholder: 'Search names and attributes  /' });
  input.setAttribute('aria-label', 'Search names and attributes');
  input.addEventListener('input', () => { search(input.value); nextFound(1); });
  const count = rows.filter(problems).length;
  const problem = button(count + (count === 1 ? ' problem' : ' problems'), () => keys.n(), 'Go to the next problem: n');
  problem.disabled = count === 0;
  const wait = button('Waits in queues', () => keys.w(), 'Go to the next wait in a queue: w');
  wait.disabled = !rows.some(waits);
  $('#tools').append(input, element('span', '', { id: 'count', ariaLive: 'polite' }), problem, wait,
    button('Fold', foldAll, 'Fold or unfold everything: e'),
    button('Whole time', () => document.querySelectorAll('section').forEach(section => zoom(section, 0, 1)), 'Zoom out: 0'),
    button('Light or dark', dark, 'd'), button('Keys', keys['?'], '?'));
  const redraw = () => document.querySelectorAll('section').forEach(section => zoom(section, viewOf(section).from, viewOf(section).span));
  redraw();
  addEventListener('resize', redraw);
  document.querySelectorAll('.ticks').forEach(zoomByDragging);
  const asked = document.getElementById(location.hash.slice(1));
  if (asked && place.has(asked)) choose(place.get(asked));
  else choose(Math.max(nextOf(-1, 1, problems), 0), { focus: false });
}
begin();
})();

/** Which rows and columns of a large table are in sight. Pure. */

/** From `start` up to `end`, which is not in it. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** The rows of one height in sight, and `spare` more at each end. */
export const rows = (scrolled: number, sight: number, height: number, total: number, spare: number): Span => {
  const start = Math.max(0, Math.min(Math.floor(scrolled / height), total) - spare);
  return { start, end: Math.max(start, Math.min(total, Math.ceil((scrolled + sight) / height) + spare)) };
};

/** Where each column starts; one number more than columns, the last is the whole width. */
export const starts = (widths: ReadonlyArray<number>): ReadonlyArray<number> => {
  const at = [0];
  for (const width of widths) at.push((at.at(-1) ?? 0) + width);
  return at;
};

/** The columns in sight, and one more at each end. */
export const columns = (scrolled: number, sight: number, at: ReadonlyArray<number>): Span => {
  const total = at.length - 1;
  let low = 0;
  let high = total;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((at[middle + 1] ?? 0) <= scrolled) low = middle + 1;
    else high = middle;
  }
  let end = low;
  while (end < total && (at[end] ?? 0) < scrolled + sight) end++;
  return { start: Math.max(0, low - 1), end: Math.min(total, end + 1) };
};

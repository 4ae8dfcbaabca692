/** A binary heap: what is due first comes out first; equal times in the order they came in, so that runs repeat. */
export class Heap<A> {
  private readonly items: Array<{ readonly due: number; readonly order: number; readonly value: A }> = [];
  private order = 0;

  get size(): number {
    return this.items.length;
  }

  /** When the first item is due; Infinity when there is none. */
  get due(): number {
    return this.items[0]?.due ?? Number.POSITIVE_INFINITY;
  }

  push(due: number, value: A): void {
    const items = this.items;
    const item = { due, order: this.order++, value };
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(item, items[parent]!)) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  /** Takes the first item if it is due at `now`. */
  pop(now = Number.POSITIVE_INFINITY): A | undefined {
    const items = this.items;
    const first = items[0];
    if (first === undefined || first.due > now) return undefined;
    const last = items.pop()!;
    if (items.length > 0) {
      let at = 0;
      for (;;) {
        let child = 2 * at + 1;
        if (child >= items.length) break;
        if (child + 1 < items.length && before(items[child + 1]!, items[child]!)) child++;
        if (!before(items[child]!, last)) break;
        items[at] = items[child]!;
        at = child;
      }
      items[at] = last;
    }
    return first.value;
  }
}

const before = (
  a: { readonly due: number; readonly order: number },
  b: { readonly due: number; readonly order: number },
): boolean => a.due < b.due || (a.due === b.due && a.order < b.order);

/**
 * What is due when, for many things whose times fall together: one entry for each moment, and in it whatever is due
 * then, which costs a word each.
 */
import { Heap } from "./Heap.js";

/** All that is due at one moment, in the order it came in. */
export interface Slot<A> {
  readonly due: number;
  readonly values: ReadonlyArray<A>;
}

export class Timers<A> {
  private readonly heap = new Heap<Slot<A> & { readonly values: Array<A> }>();
  private readonly slots = new Map<number, Slot<A> & { readonly values: Array<A> }>();
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** When the first is due; Infinity when there is none. */
  get due(): number {
    return this.heap.due;
  }

  /** Gives the slot that `value` is in. */
  push(due: number, value: A): Slot<A> {
    let slot = this.slots.get(due);
    if (slot === undefined) {
      slot = { due, values: [] };
      this.slots.set(due, slot);
      this.heap.push(due, slot);
    }
    slot.values.push(value);
    this.count++;
    return slot;
  }

  /** Takes the first slot if it is due at `now`. */
  pop(now: number): Slot<A> | undefined {
    const slot = this.heap.pop(now);
    if (slot === undefined) return undefined;
    this.slots.delete(slot.due);
    this.count -= slot.values.length;
    return slot;
  }
}

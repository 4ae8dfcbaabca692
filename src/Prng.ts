/**
 * A small seeded generator for simulations: not for secrets. sfc32 (Doty-Humphrey's "small fast counter", public
 * domain), ten times as fast as Effect's own `PCGRandom`, because simulations draw several numbers for each packet.
 */

/** All there is to a generator: give it to `Prng.from` and the numbers go on from there. */
export type PrngState = readonly [number, number, number, number];

export class Prng {
  private constructor(
    private a: number,
    private b: number,
    private c: number,
    private counter: number,
  ) {}

  /** The same seed (a 32-bit integer) gives the same numbers. */
  static readonly seeded = (seed: number): Prng => {
    const prng = new Prng(0, 0, seed | 0, 1);
    // similar seeds give similar first numbers: these are thrown away
    for (let i = 0; i < 16; i++) prng.next();
    return prng;
  };

  static readonly from = ([a, b, c, counter]: PrngState): Prng => new Prng(a, b, c, counter);

  state(): PrngState {
    return [this.a, this.b, this.c, this.counter];
  }

  /** 0 .. 2^32 - 1. */
  next(): number {
    const sum = (((this.a + this.b) | 0) + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** 0 <= number < 1, with 32 random bits. */
  float(): number {
    return this.next() / 0x1_0000_0000;
  }
}

/** The rules' numbers in one place. Durations are ms. */

/** Everything that may be tuned; `defaults` are right for production fleets. */
export interface Settings {
  /** Heartbeat: an announcement to every peer after a random time in this range. Source: PROTOCOL, section 2. */
  readonly announceMs: readonly [number, number];
  /** Announcements older than this are replays. Source: PROTOCOL, section 2. */
  readonly replayMs: number;
  /** Announcements further in the future than this come from a wrong clock. As wide as the replay window. */
  readonly futureMs: number;
  /** A peer without news for this long is forgotten, an object this old is deleted. Source: PROTOCOL, section 3. */
  readonly expiryMs: number;
  /**
   * A peer not heard by UDP for this long (one longest heartbeat and a bit) is asked for an announcement, and when none
   * comes within `settleMs`, looked up in the registry instead.
   */
  readonly silentMs: number;
  /** How often a silent peer is looked up: 3 chances before it expires. */
  readonly silentGetMs: readonly [number, number];
  /** How often an unchanged own object is put again: 3 chances before it expires. */
  readonly refreshMs: readonly [number, number];
  /** Least time between the starts of two puts, so that a burst of changes is one put. */
  readonly putSpacingMs: number;
  /** Time between listings in fleets of up to `listFleet` nodes; larger ones list less often in proportion. */
  readonly listMs: readonly [number, number];
  readonly listFleet: number;
  /** Longest mean time between listings. */
  readonly listLongestMs: number;
  /** First and longest wait before a failed registry request is tried again. */
  readonly retryMs: readonly [number, number];
  /** After the first scan of the registry: how long the peers' first answers are waited for. */
  readonly settleMs: number;
  /** Without a scan (registry out of reach): when to stop waiting. One longest heartbeat and a bit. */
  readonly settleAnywayMs: number;
  /** Most peers that are remembered: a limit against a key holder that forges addresses. */
  readonly maxPeers: number;
  /** Termination ends within this, whatever hangs. */
  readonly shutdownMs: number;
}

export const defaults: Settings = {
  announceMs: [20_000, 40_000],
  replayMs: 15_000,
  futureMs: 15_000,
  expiryMs: 15 * 60_000,
  silentMs: 45_000,
  silentGetMs: [180_000, 270_000],
  refreshMs: [210_000, 270_000],
  putSpacingMs: 1_000,
  listMs: [120_000, 240_000],
  listFleet: 60,
  listLongestMs: 60 * 60_000,
  retryMs: [1_000, 60_000],
  settleMs: 2_000,
  settleAnywayMs: 60_000,
  maxPeers: 65_536,
  shutdownMs: 5_000,
};

/** The parser of server-sent events. Pure. */

/** One event, as the stream says it. */
export interface ServerEvent {
  readonly id: string;
  readonly event: string;
  readonly data: string;
}

/** Largest event that is taken, in characters: far above a snapshot of 10,000 features. */
export const maxEvent = 64 * 1024 * 1024;

/** A text of its own: a slice would hold on to the whole piece that it came in. */
const own = (text: string): string => ` ${text}`.slice(1);

/** Takes the stream in pieces of any size and gives the events that are complete. */
export class EventParser {
  private rest = "";
  private id = "";
  private event = "";
  private data: Array<string> = [];

  push(piece: string): Array<ServerEvent> {
    const events: Array<ServerEvent> = [];
    let from = 0;
    // only the new piece can hold the next line's end
    let end = piece.indexOf("\n");
    while (end !== -1) {
      const line = (from === 0 ? this.rest : "") + piece.slice(from, end);
      if (from === 0) this.rest = "";
      this.line(line.endsWith("\r") ? line.slice(0, -1) : line, events);
      from = end + 1;
      end = piece.indexOf("\n", from);
    }
    this.rest += own(piece.slice(from));
    if (this.rest.length > maxEvent) throw new Error("an event is larger than 64 Mi characters");
    return events;
  }

  private line(line: string, events: Array<ServerEvent>): void {
    if (line === "") {
      if (this.data.length > 0) {
        const data = this.data.length === 1 ? own(this.data[0] ?? "") : this.data.join("\n");
        events.push({ id: this.id, event: this.event || "message", data });
      }
      this.event = "";
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(line.charCodeAt(colon + 1) === 32 ? colon + 2 : colon + 1);
    if (field === "data") this.data.push(value);
    else if (field === "event") this.event = own(value);
    else if (field === "id") this.id = own(value);
  }
}

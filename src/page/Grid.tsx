/**
 * A table of any size that can be gone through with the keyboard: only what is in sight is in the document.
 *
 * One cell is the tab stop; arrows, Home, End, Page Up and Page Down move it (with Ctrl to the ends of the table),
 * Enter opens it. Its row and column stay in the document out of sight too, so that the focus is never lost.
 */
import type { ComponentChildren, JSX } from "preact";
import { Component, createRef } from "preact";
import * as Span from "./Span.js";

export interface Column {
  readonly key: string;
  /** In pixels. */
  readonly width: number;
  /** Asked for anew each time: counts in it may have changed. */
  readonly header: () => ComponentChildren;
  readonly label: string;
  readonly className?: string;
  readonly sort?: "ascending" | "descending" | "none";
}

export interface GridProps {
  readonly label: string;
  readonly rowHeight: number;
  readonly headHeight: number;
  /** Keys of the rows in their order. */
  readonly rows: ReadonlyArray<string>;
  /** The first one heads the rows and stays in sight. */
  readonly columns: ReadonlyArray<Column>;
  /** Changes whenever a row must be drawn anew. */
  readonly version: (row: string) => string | number;
  readonly cell: (row: string, column: string) => ComponentChildren;
  readonly rowClass?: (row: string) => string;
  readonly cellClass?: (row: string, column: string) => string;
  /** What is open: marked in the table. */
  readonly selected: { readonly row: string | undefined; readonly column: string | undefined };
  /** Enter or a click; no row: the column's head. */
  readonly onOpen: (row: string | undefined, column: string) => void;
}

interface Place {
  /** -1: the head. */
  readonly row: number;
  readonly column: number;
}

interface State {
  readonly top: number;
  readonly left: number;
  readonly width: number;
  readonly height: number;
  /** Keys of the tab stop; no row: in the head. */
  readonly activeRow: string | undefined;
  readonly activeColumn: string | undefined;
}

interface RowProps {
  readonly grid: GridProps;
  readonly row: string;
  readonly index: number;
  readonly shown: ReadonlyArray<number>;
  readonly shownKey: string;
  readonly at: ReadonlyArray<number>;
  readonly version: string | number;
  /** The tab stop's column if it is in this row. */
  readonly active: number | undefined;
  readonly selected: string | undefined;
}

class Row extends Component<RowProps> {
  override shouldComponentUpdate(next: RowProps): boolean {
    const old = this.props;
    return (
      next.version !== old.version ||
      next.index !== old.index ||
      next.shownKey !== old.shownKey ||
      next.active !== old.active ||
      next.selected !== old.selected ||
      next.grid.columns !== old.grid.columns ||
      next.grid.rowHeight !== old.grid.rowHeight ||
      next.grid.cell !== old.grid.cell
    );
  }

  override render({ active, at, grid, index, row, selected, shown }: RowProps): JSX.Element {
    const className = grid.rowClass?.(row) ?? "";
    return (
      <div
        class={`row ${className}${selected === undefined ? "" : " selected"}`}
        role="row"
        aria-rowindex={index + 2}
        style={{ top: `${index * grid.rowHeight}px`, height: `${grid.rowHeight}px` }}
      >
        {shown.map((column) => {
          const { className = "", key, width } = grid.columns[column] as Column;
          const first = column === 0;
          return (
            <div
              key={key}
              class={`${first ? "rowhead" : "cell"} ${className} ${grid.cellClass?.(row, key) ?? ""}`}
              role={first ? "rowheader" : "gridcell"}
              aria-colindex={column + 1}
              aria-selected={selected === key}
              tabIndex={active === column ? 0 : -1}
              data-row={row}
              data-column={key}
              style={{ width: `${width}px`, ...(!first && { left: `${at[column]}px` }) }}
            >
              {grid.cell(row, key)}
            </div>
          );
        })}
      </div>
    );
  }
}

export class Grid extends Component<GridProps, State> {
  override state: State = {
    top: 0,
    left: 0,
    width: 800,
    height: 600,
    activeRow: undefined,
    activeColumn: undefined,
  };
  private readonly box = createRef<HTMLDivElement>();
  private observer: ResizeObserver | undefined;
  private frame = 0;
  private wantsFocus = false;

  override componentDidMount(): void {
    const box = this.box.current;
    if (box === null) return;
    this.measure();
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(box);
    this.showSelected();
  }

  override componentWillUnmount(): void {
    this.observer?.disconnect();
    cancelAnimationFrame(this.frame);
  }

  override componentDidUpdate(old: GridProps): void {
    const { column, row } = this.props.selected;
    if (row !== old.selected.row || column !== old.selected.column) this.showSelected();
    if (!this.wantsFocus) return;
    this.wantsFocus = false;
    this.box.current?.querySelector<HTMLElement>('[tabindex="0"]')?.focus({ preventScroll: true });
  }

  /** Brings what is open into sight, and makes it the tab stop: closed again, the focus comes back to it. */
  private showSelected(): void {
    const { columns, rows, selected } = this.props;
    if (selected.row === undefined) return;
    const row = rows.indexOf(selected.row);
    const column = Math.max(
      0,
      columns.findIndex(({ key }) => key === selected.column),
    );
    if (row === -1) return;
    this.reveal({ row, column });
    this.setState({ activeRow: rows[row], activeColumn: columns[column]?.key });
  }

  private measure(): void {
    const box = this.box.current;
    if (box === null) return;
    const { clientHeight: height, clientWidth: width, scrollLeft: left, scrollTop: top } = box;
    const old = this.state;
    if (old.height !== height || old.width !== width || old.left !== left || old.top !== top) {
      this.setState({ top, left, width, height });
    }
  }

  private readonly onScroll = (): void => {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.measure());
  };

  /** The tab stop's place; the first row's head while it has none (or what it had has gone). */
  private place(): Place {
    const { columns, rows } = this.props;
    const { activeColumn, activeRow } = this.state;
    const column = Math.max(
      0,
      columns.findIndex(({ key }) => key === activeColumn),
    );
    if (activeRow === undefined) return { row: activeColumn === undefined && rows.length > 0 ? 0 : -1, column };
    const row = rows.indexOf(activeRow);
    return { row: row === -1 && rows.length > 0 ? 0 : row, column };
  }

  private moveTo(place: Place): void {
    const { columns, rows } = this.props;
    const row = Math.max(-1, Math.min(rows.length - 1, place.row));
    const column = Math.max(0, Math.min(columns.length - 1, place.column));
    this.reveal({ row, column });
    this.wantsFocus = true;
    this.setState({ activeRow: rows[row], activeColumn: columns[column]?.key });
  }

  /** Scrolls as little as brings a cell into sight. */
  private reveal({ column, row }: Place): void {
    const { columns, headHeight, rowHeight } = this.props;
    const box = this.box.current;
    if (box === null) return;
    if (row >= 0) {
      const top = row * rowHeight;
      const sight = box.clientHeight - headHeight;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + rowHeight > box.scrollTop + sight) box.scrollTop = top + rowHeight - sight;
    }
    if (column > 0) {
      const at = Span.starts(columns.map(({ width }) => width));
      const head = at[1] ?? 0;
      const from = at[column] ?? 0;
      const to = at[column + 1] ?? 0;
      if (from - head < box.scrollLeft) box.scrollLeft = from - head;
      else if (to > box.scrollLeft + box.clientWidth) box.scrollLeft = to - box.clientWidth;
    }
  }

  private readonly onKeyDown = (event: KeyboardEvent): void => {
    if (event.altKey || event.metaKey) return;
    const { row, column } = this.place();
    const { columns, headHeight, rowHeight, rows } = this.props;
    const page = Math.max(1, Math.floor((this.state.height - headHeight) / rowHeight) - 1);
    const moves: Record<string, Place> = {
      ArrowUp: { row: row - 1, column },
      ArrowDown: { row: row + 1, column },
      ArrowLeft: { row, column: column - 1 },
      ArrowRight: { row, column: column + 1 },
      PageUp: { row: Math.max(0, row - page), column },
      PageDown: { row: row + page, column },
      Home: event.ctrlKey ? { row: 0, column: 0 } : { row, column: 0 },
      End: event.ctrlKey ? { row: rows.length - 1, column: columns.length - 1 } : { row, column: columns.length - 1 },
    };
    const move = moves[event.key];
    if (move !== undefined) {
      event.preventDefault();
      this.moveTo(move);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      const key = columns[column]?.key;
      if (key !== undefined) this.props.onOpen(rows[row], key);
    }
  };

  /** The keys of the cell that an event is in. */
  private readonly where = ({ target }: Event): { row: string | undefined; column: string } | undefined => {
    const cell = target instanceof Element ? target.closest<HTMLElement>("[data-column]") : null;
    const column = cell?.dataset["column"];
    return column === undefined ? undefined : { row: cell?.dataset["row"], column };
  };

  private readonly onClick = (event: Event): void => {
    const where = this.where(event);
    // text that has been selected is to be copied
    if (where === undefined || getSelection()?.isCollapsed === false) return;
    this.props.onOpen(where.row, where.column);
  };

  private readonly onFocus = (event: Event): void => {
    const where = this.where(event);
    if (where === undefined) return;
    if (where.row !== this.state.activeRow || where.column !== this.state.activeColumn) {
      this.setState({ activeRow: where.row, activeColumn: where.column });
    }
  };

  override render(props: GridProps, { height, left, top, width }: State): JSX.Element {
    const { columns, headHeight, label, rowHeight, rows, selected } = props;
    const at = Span.starts(columns.map((column) => column.width));
    const total = at.at(-1) ?? 0;
    const place = this.place();
    const span = Span.rows(top, height - headHeight, rowHeight, rows.length, 6);
    const inSight = Array.from({ length: span.end - span.start }, (_, index) => span.start + index);
    if (place.row >= 0 && place.row < span.start) inSight.unshift(place.row);
    if (place.row >= span.end) inSight.push(place.row);
    const columnSpan = Span.columns(left + (at[1] ?? 0), width - (at[1] ?? 0), at);
    const shown = columns.flatMap((_, index) =>
      index === 0 || index === place.column || (index >= columnSpan.start && index < columnSpan.end) ? [index] : [],
    );
    const shownKey = shown.join();
    return (
      <div
        ref={this.box}
        class="grid"
        role="grid"
        aria-label={label}
        aria-rowcount={rows.length + 1}
        aria-colcount={columns.length}
        onScroll={this.onScroll}
        onKeyDown={this.onKeyDown}
        onClick={this.onClick}
        onFocusIn={this.onFocus}
      >
        <div class="gridhead" role="rowgroup" style={{ width: `${total}px` }}>
          <div class="row" role="row" aria-rowindex={1} style={{ height: `${headHeight}px` }}>
            {shown.map((index) => {
              const { className = "", header, key, label: name, sort, width } = columns[index] as Column;
              return (
                <div
                  key={key}
                  class={`${index === 0 ? "rowhead" : "cell"} ${className}${selected.row === undefined && selected.column === key ? " open" : ""}`}
                  role="columnheader"
                  aria-colindex={index + 1}
                  title={name}
                  {...(sort !== undefined && { "aria-sort": sort })}
                  tabIndex={place.row === -1 && place.column === index ? 0 : -1}
                  data-column={key}
                  style={{ width: `${width}px`, ...(index > 0 && { left: `${at[index]}px` }) }}
                >
                  {header()}
                </div>
              );
            })}
          </div>
        </div>
        <div class="gridbody" role="rowgroup" style={{ width: `${total}px`, height: `${rows.length * rowHeight}px` }}>
          {inSight.map((index) => {
            const row = rows[index] as string;
            return (
              <Row
                key={row}
                grid={props}
                row={row}
                index={index}
                shown={shown}
                shownKey={shownKey}
                at={at}
                version={props.version(row)}
                active={place.row === index ? place.column : undefined}
                selected={selected.row === row ? (selected.column ?? columns[0]?.key) : undefined}
              />
            );
          })}
        </div>
      </div>
    );
  }
}

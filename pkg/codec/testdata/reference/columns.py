"""Columns of numbers: section 12 of docs/format/link-codec.md."""

from coder import (Expected, Magnitude, Trend, div, estimates, estimates2, i64, need, u8, u32)
from state import add_costs, length


class Model:
    def __init__(self):
        self.sign, self.rank_sign, self.known = estimates(4), estimates(4), estimates(8)
        self.by, self.rank = Magnitude(), Magnitude()

    def copy(self):
        m = Model()
        m.sign, m.rank_sign, m.known = self.sign[:], self.rank_sign[:], self.known[:]
        m.by, m.rank = self.by.copy(), self.rank.copy()
        return m


class Number:
    """A column of numbers."""

    def __init__(self, changed):
        self.changed = [p & ~7 | min(p & 7, 3) for p in changed]
        self.format = (0, 0, 0, 0)
        self.v1 = self.v2 = self.at = self.seen = 0
        self.hist = self.busy = 0
        self.ticks, self.tick = False, 0
        self.cost = [0] * 6
        self.copied = 0
        self.model = None
        self.signs, self.e, self.e_rank = 0, Expected(), Expected()
        self.values, self.room, self.plain = [], 0, False
        self.hit = self.twin = self.gain = 0
        self.alike = 7

    def bytes(self):
        return 240 + (736 if self.model else 0) + 8 * self.room


class Ring:
    """An entry of the ring of the last 32 numbers."""

    def __init__(self, x=0, format=(0, 0, 0, 0), moved=False, change=0, rank=0, part=0):
        self.x, self.format, self.moved = x, format, moved
        self.change, self.rank, self.part = change, rank, part


class Neighbours:
    """The numbers of a message, and those that its template had in the message before."""

    def __init__(self, last):
        self.template, self.now = last or [], []
        self.before = self.was = 0

    def last(self):
        i = len(self.now)
        return self.template[i] if i < len(self.template) else None


class Numbers:
    """The part of a session that codes numbers. The session has coder, micros (the time of the
    message), limit, used and values."""

    def __init__(self):
        self.format_other, self.format_part = estimates(1), estimates2(3, 32)
        self.strip = estimates(4)
        self.changed, self.first_value = estimates(64), estimates(1)
        self.recent_moves = 0
        self.ring = [Ring() for _ in range(32)]  # the last one first
        self.model, self.alike = Model(), estimates(8)
        self.by_trend, self.rank_trend = Trend(), Trend()

    def number(self, col, message):
        """Codes a number; returns it as text."""
        coder, before = self.coder, col.v1
        if coder.bit(self.format_other):
            self.new_format(col)
        t = self.micros
        p = self.foresee(col, message, t)
        best = 3 if not col.seen else col.cost.index(min(col.cost))
        news = Ring()
        i = col.hist & 7 | (p[best] != col.v1) << 3 | (self.recent_moves & 3) << 4
        if not col.seen:
            changed = coder.bit(self.first_value)
        else:
            changed = coder.bit(col.changed, i)
            coder.learn(self.changed, i, changed)
        col.hist = u8(col.hist << 1 | changed)
        x = self.change(col, p[best], news) if changed else p[best]
        moved = x != col.v1
        if col.busy:
            self.recent_moves = u8(self.recent_moves << 1 | moved)
        if moved and x != p[5] and best != 5:
            for k in range(1, 32):
                r = self.back(k)
                if r.moved and r.x == x and r.format == col.format:
                    col.copied = k
                    break
        news.x, news.format, news.moved = x, col.format, moved
        self.ring = [news] + self.ring[:31]
        add_costs(col.cost, p, x, 6)
        if col.seen and moved:
            find_tick(col, x, t)
        message.now.append((x, col.format))
        message.before, message.was = before, x
        col.v2 = col.v1 if col.seen else x
        col.v1, col.at = x, t
        col.seen = min(col.seen + 1, 255)
        return show(x, col.format)

    def new_format(self, col):
        coder, before = self.coder, col.format
        decimals, zeros, width = (coder.tree(self.format_part[i], 5) for i in range(3))
        col.format = (decimals, zeros, width, coder.tree(self.strip, 2))
        need(decimals <= 24 and zeros <= decimals and col.format[3] <= 2, "format")
        k = decimals - zeros - before[0] + before[1]
        if k == 0 or not col.seen:
            return
        col.v1, col.v2 = (scale(v, k)[0] for v in (col.v1, col.v2))
        scaled = [scale(v, k) for v in col.values]
        col.values = [v for v, _ in scaled]
        if not all(exact for _, exact in scaled):
            self.forget_values(col)
        col.ticks = False

    def back(self, k):
        """The number k numbers back; 0: none."""
        return self.ring[k - 1] if k else Ring()

    def foresee(self, col, message, t):
        v1 = col.v1
        p = [v1] * 6
        if col.seen:
            p[1] = i64(2 * v1 - col.v2)
            if col.ticks:
                p[2] = i64(v1 + ticks(t, col.tick) - ticks(col.at, col.tick))
            a, b = message.before, message.was
            if a and a != b:
                p[4] = rounded(v1, b, a)
        last = message.last()
        if last and last[1] == col.format:
            p[3] = last[0]
        copied = self.back(col.copied)
        if copied.format == col.format:
            p[5] = copied.x
        return p

    def difference(self, col, model):
        d = self.coder.signed(model.sign, col.signs & 3, model.by, self.by_trend, col.e)
        col.signs = col.signs << 1 & 3 | (d > 0)
        return d

    def change(self, col, foreseen, news):
        """The number where it is not the foreseen one."""
        col.busy += 1
        if col.busy == 61:
            col.model = self.model.copy()
            self.used += 736
        col.busy = min(col.busy, 254)
        model = col.model or self.model
        if not col.plain and not col.values:
            self.put(col, 0, col.v1)
        if not col.values:
            return i64(foreseen + self.difference(col, model))
        origin = place_of(col.values, col.v1)
        w = self.back(col.twin)
        col.hit = self.coder.bit(model.known, col.hit | w.change << 1)
        if col.hit:
            return self.change_known(col, model, foreseen, news, origin, w)
        return self.change_unknown(col, model, foreseen, news, origin, w)

    def change_known(self, col, model, foreseen, news, origin, w):
        coder, values = self.coder, col.values
        start, e, at = place_of(values, foreseen), origin + w.rank, None
        if w.change == 1 and 0 <= e < len(values) and values[e] != foreseen:
            b = coder.bit(self.alike, col.alike & 7)
            col.alike = u8(col.alike << 1 | b)
            at = None if b else e
        if at is None:
            d = coder.signed(model.rank_sign, col.signs & 3, model.rank, self.rank_trend,
                             col.e_rank)
            col.signs = col.signs << 1 & 3 | (d > 0)
            if d > 0 and values[start:start + 1] != [foreseen]:
                d -= 1
            at = start + d
            need(0 <= at < len(values) and values[at] != foreseen, "a place in a dictionary")
        news.change, news.rank = 1, at - origin
        if col.alike & 7 == 7:
            col.twin = 0
            for k in range(1, 32):
                r = self.back(k)
                if abs(news.rank) >= 3 and r.change == 1 and r.rank == news.rank:
                    col.twin, col.alike = k, 0xFE
                    break
        x = values[at]
        col.gain += length(i64(x - foreseen)) - length(at - start)
        col.gain = min(col.gain, 1 << 20)
        return x

    def change_unknown(self, col, model, foreseen, news, origin, w):
        values, i = col.values, origin + w.rank
        col.gain -= 1
        if w.change == 2 and col.alike & 7 != 7 and 0 < i < len(values):
            lo, hi = values[i - 1], values[i]
            foreseen = i64(lo + rounded(i64(hi - lo), w.part, 1 << 31))
            d = self.difference(col, model)
            x = i64(foreseen + (d - 1 if d > 0 else d))
        else:
            x = i64(foreseen + self.difference(col, model))
        news.change = 3
        i = place_of(values, x)
        if values[i:i + 1] == [x]:
            return x
        if 0 < i < len(values):
            lo, hi = values[i - 1], values[i]
            news.change, news.rank = 2, i - origin
            news.part = u32(rounded(i64(x - lo), 1 << 31, i64(hi - lo)))
        self.remember(col, i, x)
        return x

    def remember(self, col, i, x):
        n = len(col.values)
        if n == 2048 or n >= 128 and n & n - 1 == 0:
            if col.gain < 0:
                self.forget_values(col)
                col.plain = True
                return
            col.gain //= 2
        if n < 2048:
            self.put(col, i, x)

    def forget_values(self, col):
        self.used -= 8 * col.room
        self.values -= 8 * col.room
        col.values, col.room = [], 0

    def put(self, col, i, x):
        if len(col.values) == col.room:
            more = col.room or 8
            if self.values + 8 * more > self.limit // 2:
                return
            col.room += more
            self.used += 8 * more
            self.values += 8 * more
        col.values.insert(i, x)


def ticks(t, tick):
    return i64(t * 10 ** tick) if tick >= 0 else div(t, 10 ** -tick)


def find_tick(col, x, t):
    d = i64(x - col.v1)
    if col.ticks and col.cost[2] <= 65536 or d <= 0:
        return
    for tick in range(-6, 7):
        off = i64(i64(ticks(t, tick) - ticks(col.at, tick)) - d)
        if off > d >> 3:
            return
        if off >= -(d >> 3):
            col.tick, col.ticks = tick, True
            return


def rounded(a, b, d):
    q = (abs(a) * abs(b) + abs(d) // 2) // abs(d)
    if q > 1 << 62:
        return a
    return -q if (a < 0) ^ (b < 0) ^ (d < 0) else q


def scale(v, k):
    """v * 10^k, and whether that fits and loses nothing."""
    if k < 0:
        x = div(v, 10 ** -k) if k >= -18 else 0
        return x, x * 10 ** -k == v
    x = v * 10 ** k
    if k > 18 or abs(x) > 4 * 10 ** 18 - 1:
        return 0, v == 0
    return x, True


def place_of(values, x):
    """Where x stands or would stand."""
    low, high = 0, len(values)
    while low < high:
        mid = (low + high) // 2
        if values[mid] < x:
            low = mid + 1
        else:
            high = mid
    return low


def show(x, format):
    decimals, zeros, width, strip = format
    digits = (str(abs(x)) + "0" * zeros).rjust(decimals + max(1, width), "0")
    whole, fraction = digits[:len(digits) - decimals], digits[len(digits) - decimals:]
    if strip:
        kept = fraction.rstrip("0")
        fraction = fraction[:1] if strip == 2 and not kept else kept
    return ("-" * (x < 0) + whole + ("." + fraction if fraction else "")).encode()

"""What a session knows of topics and their payloads: section 4 of docs/format/link-codec.md."""

from coder import Expected, div, estimates, i64, least_bits, need, u32, uvarint


class Room:
    """The room of a byte string: the largest it had to be, as a power of two."""

    def __init__(self):
        self.size = 0

    def hold(self, n):
        """Makes room for n bytes; returns by how much it grew."""
        before = self.size
        if n > self.size:
            self.size = max(8, 1 << least_bits(n))
        return self.size - before


class Places:
    """Things with ids: a new one takes the id that was given up last."""

    def __init__(self):
        self.list = []
        self.free = []

    def add(self, thing):
        thing.id = self.free.pop() if self.free else len(self.list)
        if thing.id == len(self.list):
            self.list.append(None)
        self.list[thing.id] = thing

    def drop(self, thing):
        self.list[thing.id] = None
        self.free.append(thing.id)

    def get(self, i):
        return self.list[i] if 0 <= i < len(self.list) else None

    def any(self):
        return len(self.list) > len(self.free)


class Topic:
    def __init__(self, name, meta):
        self.name, self.meta = name, meta
        self.properties, self.room = b"", Room()
        self.followers = [None] * 12  # [id, hits]
        self.clock = Clock()
        self.shapes = []
        self.first = estimates(1)


class Clock:
    def __init__(self):
        self.last = self.step = self.gap = self.mean = 0
        self.unit = None
        self.cost = [0] * 4
        self.run = self.seen = self.signs = 0
        self.e = Expected()

    def to_unit(self, unit):
        if self.seen and self.unit != unit:
            for name in ("last", "step", "gap", "mean"):
                setattr(self, name, convert(getattr(self, name), self.unit, unit))
        self.unit = unit


def convert(x, unit, to):
    """A time in one unit (0 us, 1 ms, 2 s) in another."""
    return i64(x * 1000 ** (unit - to)) if unit >= to else div(x, 1000 ** (to - unit))


NUMBER, HEX, WORD, SUM, FLAG = 1, 2, 3, 4, 5


class Template:
    """Section 9: parts are literals (bytes) and tokens (tuples, the kind first)."""

    def __init__(self, text):
        self.text = text
        self.references = 0
        self.parts = []
        at = 0
        while at < len(text):
            b = text[at]
            at += 1
            if b > 5:
                if not self.parts or not isinstance(self.parts[-1], bytearray):
                    self.parts.append(bytearray())
                self.parts[-1].append(b)
                continue
            if b == HEX:
                need(at + 2 <= len(text), "a hex token without style")
                separator, style = text[at], text[at + 1]
                at += 2
                need(separator > 5 and style in b"aA", "a hex token")
                self.parts.append((HEX, separator, style))
            else:
                if b == SUM:
                    literal = self.parts and self.parts[-1]
                    need(isinstance(literal, bytearray) and literal[-1:] == b"*"
                         and text[:1] in (b"$", b"!"), "a checksum where none can be")
                self.parts.append((b,))
        tokens = [p[0] for p in self.parts if isinstance(p, tuple)]
        need(tokens.count(SUM) <= 1, "two checksums")
        self.tokens = [k for k in tokens if k != SUM]
        need(len(self.tokens) <= 512, "tokens")
        self.count = len(tokens)
        self.numbers = None  # (x, format) of each number in the message before

    def bytes(self):
        return 176 + 2 * len(self.text) + 48 * (self.count + 1)


class Bytes:
    def __init__(self, key):
        self.key = key
        self.now, self.older = bytearray(), bytearray()
        self.hist, self.step = bytearray(), bytearray()
        self.rooms = [Room(), Room(), Room()]
        self.length = 0
        self.length_other, self.differs, self.raw = estimates(1), estimates(1), estimates(1)

    def bytes(self):
        now, older, hist = (r.size for r in self.rooms)
        return 152 + now + older + 2 * hist


class Flag:
    def __init__(self):
        self.f = estimates(8)
        self.hist = 0

    def bytes(self):
        return 24


class Columns:
    def __init__(self, tokens, columns):
        self.tokens, self.list = tokens, columns
        self.references = 0

    def bytes(self):
        return 160 + sum(c.bytes() for c in self.list)


class Shape:
    """Of a topic: a template with columns, or bytes, or long text (neither)."""

    def __init__(self, template=None, columns=None, octets=None):
        self.template, self.columns, self.octets = template, columns, octets


def length(x):
    return abs(x).bit_length()


def add_costs(cost, p, x, shift):
    for i, v in enumerate(p):
        d = i64(x - v)
        miss = length(d) + 2 << 8 if d else 0
        cost[i] = u32(cost[i] + miss - (cost[i] >> shift))


class Guess:
    """A follower as a guess of the next topic."""

    def __init__(self, follower, clock, now):
        self.follower, self.period = follower, clock.mean
        self.at = i64(16 * clock.last + clock.mean)
        wait = i64(self.at - 16 * now)
        if clock.seen < 2:
            self.expectation = 0
        elif wait < -self.period:
            self.expectation = 4
        elif wait <= max(self.period >> 3, 96):
            self.expectation = 3
        else:
            self.expectation = 2 if wait <= self.period >> 1 else 1

    def before(self, other):
        a, b = self.expectation == 3, other.expectation == 3
        if a and b:
            if i64(self.at + 48) >= other.at and i64(other.at + 48) >= self.at:
                return self.period > other.period + (other.period >> 2)
            return self.at < other.at
        if a or b:
            return a
        return self.follower[1] > other.follower[1]


class Spelling:
    """What section 10 keeps for each text."""

    def __init__(self):
        self.last = self.start = self.held = self.n = 0


class Walk:
    """What section 11 keeps for each payload."""

    def __init__(self):
        self.changed = self.sum = self.last = 0


def read_properties(data):
    """The properties of a record as protocol.md writes them, section 4."""
    need(data and data[0] < 32, "properties")
    at, fields = 1, {"utf8": True} if data[0] & 1 else {}

    def string():
        nonlocal at
        n, begin = uvarint(data, at)
        at = begin + n
        need(at <= len(data), "properties that end too early")
        return data[begin:at]

    for i, name in enumerate(("content_type", "response_topic", "correlation_hex")):
        if data[0] >> i + 1 & 1:
            fields[name] = string().hex() if i == 2 else string().decode()
    if data[0] & 16:
        n, at = uvarint(data, at)
        need(n <= len(data), "user properties")
        fields["user"] = [[string().decode(), string().decode()] for _ in range(n)]
    need(at == len(data), "bytes behind the properties")
    return fields

#!/usr/bin/env python3
"""A decoder of the learning codec (codec 2), written from docs/format/link-codec.md alone.

It follows the document section by section and is made to be read, not to be fast. It shares no
code with the codec that it checks. Python's integers have no width: wherever a value could leave
its own, u8, u32, u64 or i64 below cut it back.

    decode.py vectors.json …     decodes golden vectors, prints a JSON line for each record
"""

import json
import sys

# ---------------------------------------------------------------- 1. Rules


class Refused(Exception):
    """The body holds what is not allowed; the session is over."""


def need(allowed, what):
    if not allowed:
        raise Refused(what)


def u8(x):
    return x & 0xFF


def u32(x):
    return x & 0xFFFFFFFF


def u64(x):
    return x & 0xFFFFFFFFFFFFFFFF


def i64(x):
    x &= 0xFFFFFFFFFFFFFFFF
    return x - (1 << 64) if x >> 63 else x


def div(a, b):
    """a / b, b > 0, towards zero."""
    return a // b if a >= 0 else -(-a // b)


def least_bits(n):
    """The least b with 2^b >= n."""
    return (n - 1).bit_length() if n > 0 else 0


def uvarint(data, at):
    x = shift = 0
    while True:
        need(at < len(data) and shift < 64, "a uvarint that does not end")
        b = data[at]
        at += 1
        x |= (b & 0x7F) << shift
        shift += 7
        if b < 0x80:
            return x, at


CRC_TABLE = []
for _i in range(256):
    for _ in range(8):
        _i = _i >> 1 ^ (0x82F63B78 if _i & 1 else 0)
    CRC_TABLE.append(_i)


def crc32c(crc, data):
    crc ^= 0xFFFFFFFF
    for b in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ b) & 0xFF]
    return crc ^ 0xFFFFFFFF


# ---------------------------------------------------------------- 3. Range coder

R = (43690, 26214, 18724, 13107, 9362, 5957, 3449, 1400)
C = (0, 0, 0, 1, 3, 7, 15)
S = (1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348,
     3607, 3785, 3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094)
Q = (43690, 26214, 18724, 14563, 11915, 10082, 8738, 7710, 6898, 6241, 5698, 5242, 4854, 4700,
     4300, 4100)


def squash(d):
    k, w = (d >> 7) + 16, d & 127
    return (S[k] * (128 - w) + S[min(k + 1, 32)] * w + 64) >> 7


SQUASH = [squash(d) for d in range(-2047, 2048)]
STRETCH = []
for _d, _x in enumerate(SQUASH, -2047):
    STRETCH += [_d] * (_x + 1 - len(STRETCH))
STRETCH += [2047] * (4096 - len(STRETCH))


def estimates(n):
    """n estimates: q of 13 bits above n of 3 bits."""
    return [4096 << 3] * n


def estimates2(rows, n):
    return [estimates(n) for _ in range(rows)]


def weights(n):
    """n pairs of weights of blends."""
    return [[32000, 32000] for _ in range(n)]


class Magnitude:
    def __init__(self):
        self.length = estimates2(8, 14)
        self.high = estimates2(8, 8)

    def copy(self):
        m = Magnitude()
        m.length = [row[:] for row in self.length]
        m.high = [row[:] for row in self.high]
        return m


class Trend:
    def __init__(self):
        self.length = estimates2(16, 14)
        self.weights = weights(8)


class Expected:
    """An expected length."""

    def __init__(self):
        self.mean = self.last = 0


def hash32(a, b):
    h = (a * 0x9E3779B1 ^ (b + 0x7F4A7C15) * 0x85EBCA6B) & 0xFFFFFFFF
    h ^= h >> 15
    h = h * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> 13


class Mixer:
    def __init__(self, slots, most, own):
        self.slots = [2048 << 4] * slots
        self.most = most
        self.own = [[0] * 5 for _ in range(own)]
        self.shared = [[16000] * 5 for _ in range(32)]
        self.coded = 0

    def bytes(self):
        return 2 * len(self.slots) + 20 * len(self.own) + 640

    def grow(self):
        """Returns the bytes by which it grew."""
        if self.coded * 16 <= len(self.slots) or len(self.slots) >= self.most:
            return 0
        self.slots += self.slots
        return len(self.slots)


class Coder:
    """The range coder over one body, and everything that is read by it."""

    def __init__(self, data):
        self.data, self.at = data, 0
        self.notes = 0
        self.rng = 0xFFFFFFFF
        self.value = 0
        for _ in range(4):
            self.value = self.value << 8 | self.next_byte()

    def next_byte(self):
        self.at += 1
        if self.at <= len(self.data):
            return self.data[self.at - 1]
        need(self.at <= len(self.data) + 4, "the body ends too early")
        return 0

    def finish(self):
        need(not any(self.data[self.at:]), "bytes behind the last record")

    def note(self, x):
        self.notes = (self.notes ^ x & 0xFFFFFFFF) * 0x9E3779B1 & 0xFFFFFFFF

    def step(self, bound):
        self.note(bound)
        rest = self.rng - bound
        if self.value < rest:
            one, self.rng = 0, rest
        else:
            one, self.rng = 1, bound
            self.value -= rest
        while self.rng < 1 << 24:
            self.rng = u32(self.rng << 8)
            self.value = u32(self.value << 8) | self.next_byte()
        return one

    def direct(self, n):
        x = 0
        for _ in range(n):
            x = x << 1 | self.step(self.rng >> 1)
        return x

    def bit(self, table, i=0):
        b = self.step((self.rng >> 13) * (table[i] >> 3))
        self.learn(table, i, b)
        return b

    def learn(self, table, i, b):
        q, n = table[i] >> 3, table[i] & 7
        if b:
            q = min(q + ((8192 - q) * R[n] + 65535 >> 16), 8191)
        else:
            q = max(q - (q * R[n] + 65535 >> 16), 1)
        if n < 7 and self.rng >> 11 & C[n] == 0:
            n += 1
        table[i] = q << 3 | n

    def tree(self, table, n):
        m = 1
        for _ in range(n):
            m = m << 1 | self.bit(table, m)
        return m - (1 << n)

    def blend(self, w, p, i, q, j):
        sp, sq = STRETCH[p[i] >> 4], STRETCH[q[j] >> 4]
        x = SQUASH[max(-2047, min(2047, sp * w[0] + sq * w[1] >> 16)) + 2047]
        b = self.step(self.rng * (x << 4 | 8) >> 16)
        miss = ((b << 12) - x) * 4
        w[0] += sp * miss + 32768 >> 16
        w[1] += sq * miss + 32768 >> 16
        self.learn(p, i, b)
        self.learn(q, j, b)
        return b

    def magnitude(self, m):
        k = 1
        while k < 64 and self.bit(m.length[0], min(k, 14) - 1):
            k += 1
        return self.below(m, k)

    def below(self, m, k):
        left, v, t = k - 1, 1, 1
        for _ in range(min(3, left)):
            left -= 1
            b = self.bit(m.high[min(k, 8) - 1], t)
            t, v = 2 * t + b, 2 * v + b
        return v << left | self.direct(left)

    def signed(self, signs, at, m, trend, e):
        negative = self.bit(signs, at)
        row = e.mean + 12 >> 4
        row = row if row <= 4 else 5 if row <= 6 else 6 if row <= 10 else 7
        k = 1
        while k < 64:
            i = min(k, 14) - 1
            if not self.blend(trend.weights[row], m.length[row], i, trend.length[e.last], i):
                break
            k += 1
        v = self.below(m, k)
        e.last = min(v.bit_length(), 15)
        e.mean = 3 * e.mean + (e.last << 4) + 2 >> 2
        return i64(-v if negative else v)

    def mix(self, mixer, inputs, own, shared):
        slots, own, shared = mixer.slots, mixer.own[own], mixer.shared[shared]
        s = [STRETCH[slots[j] >> 4] for j in inputs]
        total = 0
        for i, v in enumerate(s):
            total += v * (own[i] + shared[i])
        x = SQUASH[max(-2047, min(2047, total >> 16)) + 2047]
        b = self.step(self.rng * (x << 4 | 8) >> 16)
        miss = (b << 12) - x
        if -2 <= miss <= 2:
            miss = 0
        for i, j in enumerate(inputs):
            v = s[i] * miss
            own[i] += v * 28 + 32768 >> 16
            shared[i] += v * 10 + 32768 >> 16
            q, n = slots[j] >> 4, slots[j] & 15
            q += (b * 4095 - q) * Q[n] >> 16
            slots[j] = q << 4 | (n + 1 if n < 15 else 15)
        return b

    def mixbit(self, mixer, contexts, own):
        mask = len(mixer.slots) - 1
        return self.mix(mixer, [h & mask for h in contexts], own, 0)

    def symbol(self, mixer, contexts, values, base, own, kind, width):
        mixer.coded += 1
        mask = len(mixer.slots) - 1
        t = 1
        for i in range(width - 1, -1, -1):
            inputs = []
            for h in contexts:
                h = (h + t) * 0x9E3779B1 & 0xFFFFFFFF
                inputs.append((h ^ h >> 15) & mask)
            for j, x in enumerate(values):
                k = 0
                if (x | 256) >> i + 1 == t:
                    k = 1 + 2 * i + (x >> i & 1)
                inputs.append(hash32(base, 0xA00 | j << 5 | k) & mask)
            t = 2 * t + self.mix(mixer, inputs, own, kind * 8 + (i & 7))
        return t - (1 << width)


# ---------------------------------------------------------------- 4. State


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


class Ring:
    """An entry of the ring of the last 32 numbers."""

    def __init__(self, x=0, format=(0, 0, 0, 0), moved=False, change=0, rank=0, part=0):
        self.x, self.format, self.moved = x, format, moved
        self.change, self.rank, self.part = change, rank, part


# ---------------------------------------------------------------- 2, 5 … 12. Session


class Session:
    """A run of bodies. decode takes them in order."""

    def __init__(self):
        self.digest = 0
        self.limit = 0
        self.used, self.values = 24576, 0
        # 5, 6
        self.count, self.unit, self.now = 0, 1, 0
        self.count_other, self.count_m, self.unit_other = estimates(1), Magnitude(), estimates(1)
        self.meta, self.meta_other = 0, estimates(1)
        self.boot, self.boot_other = bytes(16), estimates(1)
        self.mono = self.mono_at = 0
        self.mono_other, self.mono_sign = estimates(1), estimates(1)
        self.mono_m, self.mono_trend, self.mono_e = Magnitude(), Trend(), Expected()
        self.properties_other = estimates(1)
        # 7
        self.topics, self.recent = Places(), {}
        self.prev = self.older = -1
        self.order = [estimates2(5, 8) for _ in range(4)]
        self.topic_new, self.shared_m, self.turns = estimates(1), Magnitude(), None
        # 8
        self.time_weights, self.stale, self.since_p = weights(3), estimates2(4, 16), estimates2(3, 32)
        self.time_sign, self.time_m, self.time_trend = estimates2(3, 4), Magnitude(), Trend()
        self.since = 0
        # 9
        self.templates, self.last_template = Places(), None
        self.rank, self.kind = estimates(16), estimates(2)
        self.template_other, self.template_unknown = estimates(1), estimates(1)
        self.keys = 0
        # 10, 11
        self.texts = None
        self.past, self.at = bytearray(), [0] * 1024
        self.length_m = Magnitude()
        self.octets = None
        # 12
        self.format_other, self.format_part = estimates(1), estimates2(3, 32)
        self.strip = estimates(4)
        self.changed, self.first_value = estimates(64), estimates(1)
        self.recent_moves = 0
        self.ring = [Ring() for _ in range(32)]  # the last one first
        self.model, self.alike = Model(), estimates(8)
        self.by_trend, self.rank_trend = Trend(), Trend()

    def decode(self, body, seed):
        """Returns the records of the next body; seed is that of its crc."""
        at = 0
        if self.limit == 0:
            need(body[:1] == b"\x01", "version")
            units, at = uvarint(body, 1)
            need(4 <= units <= 1024, "limit")
            self.limit = units << 16
            self.texts = self.mixer(1024, 16384, 4)
        need(len(body) >= at + 4, "too short")
        self.coder = coder = Coder(body[at:-4])
        self.crc = seed
        self.spelled = self.passed = 0
        content = (2 << 20) + 1000 * len(body)
        records = []
        for _ in range(self.head()):
            records.append(self.record())
            content -= records[-1]["content"]
            need(content >= 0, "content")
        coder.finish()
        x = self.digest ^ self.crc << 32 ^ coder.notes
        x = u64((x ^ x >> 33) * 0xFF51AFD7ED558CCD)
        x = u64((x ^ x >> 33) * 0xC4CEB9FE1A85EC53)
        self.digest = x ^ x >> 33
        need(u32(self.digest) == int.from_bytes(body[-4:], "little"), "check")
        return records

    def mixer(self, slots, most, own):
        return Mixer(slots, min(most, self.limit // 32), own)

    # ------------------------------------------------------------ 5. Head of a body

    def head(self):
        coder = self.coder
        if coder.bit(self.count_other):
            self.count = coder.magnitude(self.count_m)
        need(1 <= self.count <= 65536, "count")
        if coder.bit(self.unit_other):
            unit = coder.direct(2)
            need(unit <= 2, "unit")
            self.now = convert(self.now, self.unit, unit)
            self.unit = unit
        return self.count

    # ------------------------------------------------------------ 6. Record

    def record(self):
        topic, new = self.topic()
        self.time(topic.clock)
        self.micros = convert(self.now, self.unit, 0)
        record = {"topic": topic.name, "time": self.micros, "content": len(topic.name)}
        self.rest(topic, new, record)
        payload = record["payload"] = self.payload(topic)
        record["content"] += len(payload)
        self.crc = crc32c(self.crc, payload)
        for x in (crc32c(0, topic.name), self.micros, self.micros >> 32, self.meta, len(payload)):
            self.coder.note(x)
        self.forget()
        return record

    def rest(self, topic, new, record):
        coder = self.coder
        if new:
            topic.meta = self.meta
        if coder.bit(self.meta_other):
            topic.meta = coder.direct(7)
            need(topic.meta & 3 < 3, "QoS")
        self.meta = record["meta"] = topic.meta
        if self.meta & 32:
            self.monotonic(record)
        if self.meta & 64:
            if coder.bit(self.properties_other):
                properties = self.text()
                topic.properties = properties[:4096]
                self.used += topic.room.hold(len(topic.properties))
            else:
                properties = topic.properties
            self.crc = crc32c(self.crc, properties)
            record["properties"] = read_properties(properties)
            record["content"] += len(properties) + 32 * len(record["properties"].get("user", ()))

    def monotonic(self, record):
        coder = self.coder
        if coder.bit(self.boot_other):
            self.boot = bytes(coder.direct(8) for _ in range(16))
        mono = i64(self.mono + self.micros - self.mono_at)
        if coder.bit(self.mono_other):
            mono = i64(mono + coder.signed(self.mono_sign, 0, self.mono_m, self.mono_trend,
                                           self.mono_e))
        self.mono, self.mono_at = mono, self.micros
        self.crc = crc32c(self.crc, self.boot)
        coder.note(mono)
        coder.note(mono >> 32)
        record["boot"], record["mono"] = self.boot, mono

    def forget(self):
        while self.used > self.limit:
            topic = self.recent.pop(next(iter(self.recent)))
            for shape in topic.shapes:
                self.drop_shape(shape)
            self.used -= 368 + 2 * len(topic.name) + topic.room.size
            self.topics.drop(topic)
            if topic.id == self.prev:
                self.prev = -1

    # ------------------------------------------------------------ 7. Topic

    def topic(self):
        """Codes the topic; returns it and whether it is new."""
        coder, prev = self.coder, self.topics.get(self.prev)
        guesses = self.guesses(prev) if prev else []
        topic, new, missed = None, False, []
        for i, g in enumerate(guesses[:4]):
            if not coder.bit(self.order[i][g.expectation], g.follower[1]):
                topic = self.topics.get(g.follower[0])
                break
            missed.append(g.follower)
        if topic is None:
            new = coder.bit(self.topic_new) == 1
            topic = self.new_topic(prev) if new else self.known_topic(guesses)
        if prev:
            self.follow(prev, topic, missed)
        self.older, self.prev = self.prev, topic.id
        self.recent.pop(topic.id, None)
        self.recent[topic.id] = topic
        return topic, new

    def guesses(self, prev):
        out = []
        for follower in prev.followers:
            topic = follower and self.topics.get(follower[0])
            if not topic:
                continue
            g = Guess(follower, topic.clock, self.now)
            at = len(out)
            while at > 0 and g.before(out[at - 1]):
                at -= 1
            out.insert(at, g)
        return out

    def known_topic(self, guesses):
        if self.turns is None:
            self.turns = self.mixer(1024, 8192, 1)
            self.used += self.turns.bytes()
        self.used += self.turns.grow()
        first = guesses[0].follower[0] if guesses else 0
        contexts = (hash32(1, u32(self.prev)), hash32(2, u32(self.prev << 16 | u32(self.older))),
                    hash32(3, first), hash32(4, 0))
        i = self.coder.symbol(self.turns, contexts, (), 0, 0, 1, least_bits(len(self.topics.list)))
        topic = self.topics.get(i)
        need(topic, "a topic that is not known")
        return topic

    def new_topic(self, prev):
        shared = self.coder.magnitude(self.shared_m) - 1
        need(shared <= (len(prev.name) if prev else 0), "shared bytes of a topic")
        name = self.text(65535 - shared)
        topic = Topic((prev.name[:shared] if prev else b"") + name, self.meta)
        self.topics.add(topic)
        self.used += 368 + 2 * len(topic.name)
        return topic

    def follow(self, prev, topic, missed):
        weakest, found = None, None
        for i, f in enumerate(prev.followers):
            if f is None:
                weakest = i
                continue
            if f[0] == topic.id:
                found = f
            elif f in missed:
                f[1] //= 2
            if weakest is None or prev.followers[weakest] and f[1] < prev.followers[weakest][1]:
                weakest = i
        if found is None:
            found = prev.followers[weakest] = [topic.id, 0]
        found[1] = min(found[1] + 1, 7)

    # ------------------------------------------------------------ 8. Time

    def time(self, c):
        coder, now = self.coder, self.now
        c.to_unit(self.unit)
        p = [now] * 4
        if c.seen:
            p = [now, i64(now + c.gap), i64(c.last + c.step), i64(c.last + (i64(c.mean + 8) >> 4))]
        best = c.cost.index(min(c.cost))
        side = 0 if p[best] > now else 1 if p[best] == now else 2
        if coder.blend(self.time_weights[side], self.stale[best], min(c.run, 15),
                       self.since_p[side], self.since):
            c.run = 0
            d = coder.signed(self.time_sign[side], c.signs & 3, self.time_m, self.time_trend, c.e)
            c.signs = c.signs << 1 & 3 | (d > 0)
            x = i64(p[best] + d)
        else:
            x = p[best]
            c.run = min(c.run + 1, 255)
        add_costs(c.cost, p, x, 5)
        c.gap = i64(x - now)
        if c.seen:
            c.step = i64(x - c.last)
            if c.seen == 1:
                c.mean = i64(16 * c.step)
            else:
                c.mean = i64(c.mean + (i64(16 * c.step - c.mean) >> 3))
        c.last = x
        c.seen = min(c.seen + 1, 255)
        self.since = min(self.since + 1, 31) if x == now else 0
        self.now = x

    # ------------------------------------------------------------ 9. Payload

    def payload(self, topic):
        coder, shapes = self.coder, topic.shapes
        for i, shape in enumerate(shapes):
            table, at = (topic.first, 0) if i == 0 else (self.rank, min(i, 15))
            if not coder.bit(table, at):
                shapes.insert(0, shapes.pop(i))
                break
        else:
            shape = self.new_shape(topic)
        if shape.template:
            return self.fill(shape)
        if shape.octets:
            return bytes(self.pass_bytes(shape.octets))
        return self.text()

    def new_shape(self, topic):
        coder = self.coder
        if not coder.bit(self.kind, 0):
            template = self.template()
            shape = Shape(template, self.columns(topic, template))
            if template.references == 0:
                self.used += template.bytes()
            template.references += 1
            if shape.columns.references == 0:
                self.used += shape.columns.bytes()
            shape.columns.references += 1
        elif not coder.bit(self.kind, 1):
            shape = Shape(octets=Bytes(self.new_key()))
            self.used += shape.octets.bytes()
        else:
            shape = Shape()
        self.used += 48
        topic.shapes.insert(0, shape)
        if len(topic.shapes) > 32:
            self.drop_shape(topic.shapes.pop())
        return shape

    def drop_shape(self, shape):
        self.used -= 48
        if shape.octets:
            self.used -= shape.octets.bytes()
        if not shape.template:
            return
        shape.columns.references -= 1
        if shape.columns.references == 0:
            self.used -= shape.columns.bytes()
            for c in shape.columns.list:
                self.values -= 8 * c.room if isinstance(c, Number) else 0
        template = shape.template
        template.references -= 1
        if template.references == 0:
            self.used -= template.bytes()
            self.templates.drop(template)
            if self.last_template is template:
                self.last_template = None

    def template(self):
        coder = self.coder
        if self.last_template and not coder.bit(self.template_other):
            return self.last_template
        if self.templates.any() and not coder.bit(self.template_unknown):
            template = self.templates.get(coder.direct(least_bits(len(self.templates.list))))
            need(template, "a template that is not known")
        else:
            template = Template(self.word(16384))
            self.templates.add(template)
        self.last_template = template
        return template

    def columns(self, topic, template):
        for shape in topic.shapes:
            if shape.columns and shape.columns.tokens == template.tokens:
                return shape.columns
        columns = []
        for kind in template.tokens:
            if kind == NUMBER:
                columns.append(Number(self.changed))
            elif kind == FLAG:
                columns.append(Flag())
            else:
                columns.append(Bytes(self.new_key()))
        return Columns(template.tokens, columns)

    def new_key(self):
        self.keys += 1
        return hash32(self.keys, 99)

    def fill(self, shape):
        """The payload of a template."""
        out = bytearray()
        columns = iter(shape.columns.list)
        numbers = Numbers(shape.template.numbers)
        for part in shape.template.parts:
            if isinstance(part, bytearray):
                out += part
            elif part[0] == SUM:
                total = 0
                for b in out[1:-1]:
                    total ^= b
                out += b"%02X" % total
            elif part[0] == NUMBER:
                out += self.number(next(columns), numbers)
            elif part[0] == FLAG:
                c = next(columns)
                b = self.coder.bit(c.f, c.hist & 7)
                c.hist = u8(c.hist << 1 | b)
                out += b"true" if b else b"false"
            elif part[0] == WORD:
                c = next(columns)
                if self.coder.bit(c.differs):
                    c.now = self.word(256)
                    self.used += c.rooms[0].hold(len(c.now))
                out += c.now
            else:
                separator = b"" if part[1] == 0x1F else bytes(part[1:2])
                pair = b"%02X" if part[2] == ord("A") else b"%02x"
                out += separator.join(pair % b for b in self.pass_bytes(next(columns)))
        shape.template.numbers = numbers.now
        return bytes(out)

    # ------------------------------------------------------------ 10. Texts and words

    def text(self, most=1 << 30):
        self.used += self.texts.grow()
        n = self.coder.magnitude(self.length_m) - 1
        need(n <= most, "length of a text")
        spell = Spelling()
        return bytes(self.spell(spell) for _ in range(n))

    def word(self, most):
        self.used += self.texts.grow()
        spell, out = Spelling(), bytearray()
        while True:
            b = self.spell(spell)
            if b == 0:
                return bytes(out)
            out.append(b)
            need(len(out) <= most, "length of a word")

    def spell(self, t):
        self.spelled += 1
        if self.spelled > 131072:
            return self.coder.direct(8)
        past = self.past
        if len(past) >= 8192:
            past = self.past = past[-2048:]
            t.start = t.held = 0
            self.at = [0] * 1024
        expected = past[t.start] if t.start else 256
        contexts = (hash32(1, t.last & 0xFF), hash32(2, t.last & 0xFFFF),
                    hash32(3, t.last & 0xFFFFFF), hash32(4, expected << 4 | min(t.held, 15)),
                    hash32(5, 0))
        own = (t.held > 0) + (t.held > 5)
        b = self.coder.symbol(self.texts, contexts, (), 0, own, 3, 8)
        if t.start and past[t.start] == b:
            t.start += 1
            t.held += 1
        else:
            t.start = t.held = 0
        past.append(b)
        t.last = u32(t.last << 8 | b)
        i = hash32(6, t.last & 0xFFFFFF) >> 22
        t.n += 1
        if t.start == 0 and t.n > 2:
            t.start = self.at[i]
        self.at[i] = len(past)
        return b

    # ------------------------------------------------------------ 11. Bytes

    def pass_bytes(self, place):
        coder = self.coder
        if self.octets is None:
            self.octets = self.mixer(4096, 65536, 1024)
            self.used += self.octets.bytes()
        self.used += self.octets.grow()
        if coder.bit(place.length_other):
            place.length = coder.magnitude(self.length_m) - 1
            need(place.length <= 1 << 30, "length of bytes")
        n = place.length
        self.resize(place, n)
        if n > 64 and not coder.bit(place.differs):
            need(len(place.now) == n, "the same bytes")
            place.older[:] = place.now
            return bytes(place.now)
        out = self.chunks(place, n)
        place.now, place.older = place.older, place.now
        place.rooms[:2] = place.rooms[1::-1]
        return out

    def resize(self, place, n):
        held = min(n, 4096)
        del place.older[held:]
        place.older += bytes(held - len(place.older))
        lack = min(n, 256) - len(place.hist)
        if lack > 0:
            place.hist += bytes(lack)
            place.step += b"\x40" * lack
        self.used += place.rooms[1].hold(held) + 2 * place.rooms[2].hold(min(n, 256))

    def chunks(self, place, n):
        coder, out, walk = self.coder, bytearray(), Walk()
        for start in range(0, n, 64):
            end = min(start + 64, n)
            self.passed += end - start
            raw = self.passed > 1048576 or coder.bit(place.raw)
            for i in range(start, end):
                c = coder.direct(8) if raw else self.pass_byte(place, i, walk)
                out.append(c)
                if i < len(place.older):
                    place.older[i] = c
        return bytes(out)

    def pass_byte(self, place, i, w):
        coder, pos = self.coder, min(i, 255)
        was = place.now[i] if i < len(place.now) else 0
        old = place.older[i] if i < len(place.older) else 0
        hist, base = place.hist[pos], hash32(place.key, pos)
        own = base >> 22 & 511
        c = was
        if coder.mixbit(self.octets, (hash32(base, 0x100 | hist),
                                      hash32(base, 0x200 | w.changed & 15),
                                      hash32(base, 0x400 | (hist & 3) << 4 | w.changed & 3)),
                        512 + own):
            if place.step[pos] < 84:
                contexts = (hash32(base, 0x800 | was), hash32(base, 0x900),
                            hash32(base, 0xB00 | u8(was - old)))
                values = (u8(was - old), w.sum)
                c = u8(was + coder.symbol(self.octets, contexts, values, base, own, 2, 8))
            else:
                contexts = (hash32(base, 0x500 | was), hash32(base, 0x600),
                            hash32(base, 0x700 | w.last))
                values = (u8(2 * was - old), u8(was + w.sum))
                c = coder.symbol(self.octets, contexts, values, base, own, 1, 8)
        moved = c != was
        if moved:
            d = min(u8(c - was), u8(was - c))
            place.step[pos] = u8(7 * place.step[pos] + (d.bit_length() << 4) + 4 >> 3)
        place.hist[pos] = u8(hist << 1 | moved)
        w.changed = u32(w.changed << 1 | moved)
        w.sum = u8(w.sum + c - was)
        w.last = c
        return c

    # ------------------------------------------------------------ 12. Numbers

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
            d = coder.signed(model.rank_sign, col.signs & 3, model.rank, self.rank_trend, col.e_rank)
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


class Numbers:
    """The numbers of a message, and those that its template had in the message before."""

    def __init__(self, last):
        self.template, self.now = last or [], []
        self.before = self.was = 0

    def last(self):
        i = len(self.now)
        return self.template[i] if i < len(self.template) else None


def length(x):
    return abs(x).bit_length()


def add_costs(cost, p, x, shift):
    for i, v in enumerate(p):
        d = i64(x - v)
        miss = length(d) + 2 << 8 if d else 0
        cost[i] = u32(cost[i] + miss - (cost[i] >> shift))


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


# ---------------------------------------------------------------- Golden vectors


def line_of(r):
    """A record as a line of the golden vectors: what is empty is left out."""
    line = {}
    for name in ("topic", "payload"):
        try:
            line[name] = r[name].decode()
        except UnicodeDecodeError:
            line[name + "_hex"] = r[name].hex()
    line["time_us"] = r["time"]
    line["qos"], line["retain"] = r["meta"] & 3, r["meta"] >> 2 & 1 == 1
    line["time_quality"] = r["meta"] >> 3 & 3
    boot = r.get("boot", bytes(16))
    line["boot"], line["mono_us"] = boot.hex() if any(boot) else "", r.get("mono", 0)
    line["properties"] = r.get("properties")
    return {name: v for name, v in line.items() if v}


def decode_vectors(file):
    """Decodes the bodies of a file of vectors as one session; yields the lines that they make."""
    session, bodies = Session(), 0
    for line in file:
        vector = json.loads(line)
        if "body" not in vector:
            continue
        bodies += 1
        try:
            records = session.decode(bytes.fromhex(vector["body"]), vector.get("seed", 0))
        except Refused as e:
            raise Refused("body %d: %s" % (bodies, e))
        yield from map(line_of, records)
        yield {"bodies": bodies, "digest": "%016x" % session.digest, "state_bytes": session.used}


def main():
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as file:
            for line in decode_vectors(file):
                print(json.dumps(line))


if __name__ == "__main__":
    main()

"""The arithmetic of the learning codec: sections 1 and 3 of docs/format/link-codec.md.

Python's integers have no width: wherever a value could leave its own, a mask cuts it back.
"""


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

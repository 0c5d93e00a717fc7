"""Sessions: sections 2 and 5 to 11 of docs/format/link-codec.md."""

from coder import (Coder, Expected, Magnitude, Mixer, Trend, crc32c, estimates, estimates2, hash32,
                   i64, least_bits, need, u8, u32, u64, uvarint, weights)
from columns import Neighbours, Number, Numbers
from state import (FLAG, NUMBER, SUM, WORD, Bytes, Columns, Flag, Guess, Places, Shape, Spelling,
                   Template, Topic, Walk, add_costs, convert, read_properties)


class Session(Numbers):
    """A run of bodies. decode takes them in order."""

    def __init__(self):
        super().__init__()
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
        self.time_weights = weights(3)
        self.stale, self.since_p = estimates2(4, 16), estimates2(3, 32)
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
        numbers = Neighbours(shape.template.numbers)
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

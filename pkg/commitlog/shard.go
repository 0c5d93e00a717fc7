package commitlog

// ShardOf gives the shard of a device among n, as the default partitioner of
// Kafka's own producers does for a record with the device as its key: murmur2
// of the key, without its sign bit, modulo n. n must be at least 1.
func ShardOf(device string, n int) int {
	return int(murmur2(device)&0x7fffffff) % n
}

// murmur2 is the 32-bit hash by Austin Appleby with Kafka's seed.
func murmur2(key string) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(key[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}

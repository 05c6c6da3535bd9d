package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strings"
	"sync"

	"github.com/menshen-gateway/menshen/internal/config"
)

// apiKey is one live key of a consumer, by its digest. A digest without salt is enough, because keys are meant to be random: nothing
// can be guessed that a salt would make dearer.
type apiKey struct {
	digest   [sha256.Size]byte
	consumer *Consumer
	path     string // in the configuration
}

// apiKeyBytesMax is the longest key that is looked at; a request's head bounds it as well.
const apiKeyBytesMax = 4096

const digestPrefix = "sha256:"

// addAPIKey takes a key from the configuration, in plain or as its digest.
func (d *Directory) addAPIKey(c *config.Config, consumer *Consumer, path, key string) *config.Problem {
	problem := func(format string, args ...any) *config.Problem {
		p := c.Problem(path, format, args...)
		return &p
	}
	k := apiKey{consumer: consumer, path: path}
	digits, hashed := strings.CutPrefix(key, digestPrefix)
	switch {
	case key == "":
		return problem("empty: anybody could pass for %s (accepted: a key, or sha256: and 64 hexadecimal digits)", consumer.Name)
	case hashed:
		if n, err := hex.Decode(k.digest[:], []byte(digits[:min(len(digits), 2*sha256.Size)])); err != nil || n != sha256.Size || len(digits) != 2*sha256.Size {
			return problem("is no SHA-256 digest (accepted: sha256: and 64 hexadecimal digits)")
		}
	case len(key) > apiKeyBytesMax:
		return problem("a key of %d bytes (accepted: at most %d)", len(key), apiKeyBytesMax)
	case strings.TrimSpace(key) != key || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return problem("no client could send this key (accepted: text without space around it and without control characters)")
	default:
		k.digest = sha256.Sum256([]byte(key))
	}
	slot := slotOf(&k.digest)
	for _, other := range d.keys[slot] {
		if other.digest == k.digest {
			return problem("is the same key as %s (accepted: each key once, for one consumer)", other.path)
		}
	}
	if d.keys == nil {
		d.keys = map[uint64][]apiKey{}
	}
	d.keys[slot] = append(d.keys[slot], k)
	return nil
}

func slotOf(digest *[sha256.Size]byte) uint64 { return binary.LittleEndian.Uint64(digest[:8]) }

// hasher is a digest under way. They are kept, because whether Sum256 allocates one depends on what the compiler inlines.
type hasher struct {
	hash.Hash
	sum [sha256.Size]byte
}

var hashers = sync.Pool{New: func() any { return &hasher{Hash: sha256.New()} }}

func digestOf(key []byte) [sha256.Size]byte {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	h.Reset()
	_, _ = h.Write(key) // never fails
	h.Sum(h.sum[:0])
	return h.sum
}

// APIKey gives the consumer whose key this is; nil when it is nobody's. What the look-up takes depends on the key's digest
// only, whose bits a client cannot choose, and digests are compared in constant time. It does not allocate.
func (d *Directory) APIKey(key []byte) *Consumer {
	if d == nil || len(key) == 0 || len(key) > apiKeyBytesMax {
		return nil
	}
	digest := digestOf(key)
	found := (*Consumer)(nil)
	for i := range d.keys[slotOf(&digest)] {
		k := &d.keys[slotOf(&digest)][i]
		if subtle.ConstantTimeCompare(k.digest[:], digest[:]) == 1 {
			found = k.consumer
		}
	}
	return found
}

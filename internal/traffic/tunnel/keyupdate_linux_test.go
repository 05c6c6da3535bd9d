package tunnel

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// records seals what a TLS 1.3 client sends, which crypto/tls would not send by itself (RFC 8446, 5.2 and 7.2).
type records struct {
	secret []byte
	count  uint64
	aead   cipher.AEAD
	iv     []byte
}

func (r *records) expand(label string, n int) []byte {
	label = "tls13 " + label
	info := append([]byte{0, byte(n), byte(len(label))}, label...)
	out, err := hkdf.Expand(sha256.New, r.secret, string(append(info, 0)), n)
	if err != nil {
		panic(err)
	}
	return out
}

func (r *records) rekey(secret []byte) {
	r.secret, r.count = secret, 0
	block, err := aes.NewCipher(r.expand("key", 16))
	if err != nil {
		panic(err)
	}
	if r.aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	r.iv = r.expand("iv", 12)
}

func (r *records) seal(kind byte, content ...byte) []byte {
	inner := append(content, kind)
	head := []byte{23, 3, 3, 0, byte(len(inner) + r.aead.Overhead())}
	nonce := bytes.Clone(r.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^r.count)
	r.count++
	return r.aead.Seal(head, nonce, inner, head)
}

// Each request for new keys is answered within a read. A client that sends them all the time and reads nothing holds up that read for ever, and behind it the
// goodbye; the tunnel ends all the same, and does not hold up the other side.
func TestAClientThatWantsNewKeysAndReadsNothing(t *testing.T) {
	t.Parallel()
	client, accepted := pair(t)
	defer client.Close()
	if err := errors.Join(client.(*net.TCPConn).SetReadBuffer(4<<10), accepted.(*net.TCPConn).SetWriteBuffer(4<<10)); err != nil {
		t.Fatal(err)
	}
	a := tls.Server(poll.Adopt(accepted), &tls.Config{Certificates: []tls.Certificate{certificate()}, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13})
	shaken := make(chan error, 1)
	go func() { shaken <- a.Handshake() }()
	var keys bytes.Buffer
	secure := tls.Client(client, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &keys})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	if secure.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("the records below are of another suite")
	}
	var r records
	for line := range strings.Lines(keys.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			r.rekey(secret)
		}
	}
	far, b := pair(t)
	defer far.Close()
	_, over := relay(a, poll.Adopt(b), 200*time.Millisecond)
	gone := make(chan struct{})
	go func() { // ends when the tunnel does
		defer close(gone)
		for i := 1; ; i++ {
			packet := r.seal(22, 24, 0, 0, 1, 1) // KeyUpdate, update_requested
			r.rekey(r.expand("traffic upd", sha256.Size))
			if i%10 == 0 { // crypto/tls takes no more than 16 of them in a row
				packet = append(packet, r.seal(23, 'x')...)
			}
			if _, err := client.Write(packet); err != nil {
				return
			}
		}
	}()
	select {
	case <-over:
	case <-time.After(patience):
		t.Error("the tunnel does not end")
		client.Close()
		<-over
	}
	<-gone
}

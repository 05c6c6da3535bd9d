package backend

import (
	"errors"
	"fmt"

	"github.com/menshen-gateway/menshen/internal/mysql"
)

// authentication is the conversation between the client's first answer and the server's OK.
type authentication struct {
	conn     *Conn
	password string
	secure   bool // inside TLS
	plugin   string
	nonce    []byte
}

// roundsMax bounds the conversation: the longest honest one is switch, key, password, OK.
const roundsMax = 8

// first makes a plugin's first answer.
func (a *authentication) first() ([]byte, error) {
	switch a.plugin {
	case mysql.NativePassword:
		return mysql.NativeScramble(a.password, a.nonce), nil
	case mysql.CachingSHA2:
		return mysql.SHA2Scramble(a.password, a.nonce), nil
	case mysql.Ed25519:
		if len(a.nonce) != mysql.Ed25519NonceLen {
			return nil, fmt.Errorf("%w: %s with a nonce of %d bytes", mysql.ErrMalformed, a.plugin, len(a.nonce))
		}
		return mysql.Ed25519Sign(a.password, a.nonce), nil
	case mysql.ClearPassword:
		if !a.secure {
			return nil, errors.New("the instance asks for the password in clear text, which is sent over TLS only")
		}
		return append([]byte(a.password), 0), nil
	}
	return nil, fmt.Errorf("the instance asks for authentication %q (known: %s, %s, %s, and %s over TLS)",
		a.plugin, mysql.NativePassword, mysql.CachingSHA2, mysql.Ed25519, mysql.ClearPassword)
}

// finish goes on until the server says OK or refuses. seq is the number of its next packet.
func (a *authentication) finish(seq uint8) error {
	for range roundsMax {
		payload, next, err := a.conn.ReadMessage(seq, messageMax)
		if err != nil {
			return err
		}
		seq = next
		switch {
		case mysql.IsOK(payload):
			var ok mysql.OK
			if err := ok.Decode(payload, a.conn.Capabilities); err != nil {
				return err
			}
			a.conn.Status = ok.Status
			return nil
		case mysql.IsError(payload):
			return refusal(payload)
		case len(payload) > 0 && payload[0] == 0xfe:
			var change mysql.AuthSwitch
			if err := change.Decode(payload); err != nil {
				return err
			}
			a.plugin, a.nonce = change.Plugin, change.Nonce
			answer, err := a.first()
			if err != nil {
				return err
			}
			if err := a.send(seq, answer); err != nil {
				return err
			}
			seq++
		case len(payload) == 2 && payload[0] == mysql.AuthMore && a.plugin == mysql.CachingSHA2:
			switch payload[1] {
			case mysql.SHA2FastDone:
			case mysql.SHA2Full:
				if seq, err = a.full(seq); err != nil {
					return err
				}
			default:
				return fmt.Errorf("%w: %s goes on with %#x", mysql.ErrMalformed, a.plugin, payload[1])
			}
		default:
			return fmt.Errorf("%w: sign-in", mysql.ErrMalformed)
		}
	}
	return fmt.Errorf("%w: sign-in does not end", mysql.ErrMalformed)
}

// full hands over the password itself: inside TLS, or under the server's RSA key. The key is taken from the server as it
// comes; who can change it on the way can read the password, so instances behind untrusted networks need TLS.
func (a *authentication) full(seq uint8) (next uint8, err error) {
	if a.secure {
		return seq + 1, a.send(seq, append([]byte(a.password), 0))
	}
	if err := a.send(seq, []byte{mysql.SHA2PublicKey}); err != nil {
		return 0, err
	}
	payload, seq, err := a.conn.ReadMessage(seq+1, messageMax)
	if err != nil {
		return 0, err
	}
	if mysql.IsError(payload) {
		return 0, refusal(payload)
	}
	key, err := mysql.DecodePublicKey(payload)
	if err != nil {
		return 0, err
	}
	sealed, err := mysql.EncryptPassword(key, a.password, a.nonce)
	if err != nil {
		return 0, err
	}
	return seq + 1, a.send(seq, sealed)
}

func (a *authentication) send(seq uint8, data []byte) error {
	return a.conn.WriteMessage(seq, func(dst []byte) []byte { return append(dst, data...) })
}

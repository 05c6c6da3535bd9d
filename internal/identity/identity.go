// Package identity knows the consumers of a configuration and how they prove who they are; both doors ask it. A
// Directory is compiled with each generation and never changes.
//
// It keeps no password, only what a proof is checked against, and it compares in constant time. A user that does not
// exist is checked like one that does, against a secret that nobody knows, so that neither an answer nor its delay tells
// which names exist.
//
// It refuses to speak a protocol (a door hands it the bytes of a proof) and to decide what a consumer may do.
package identity

import (
	"crypto/rand"
	"fmt"
	"maps"
	"slices"

	"github.com/menshen-gateway/menshen/internal/config"
)

// Consumer is an identity: who sent a request or a statement. It is never changed after Compile.
type Consumer struct {
	Name   string
	Groups []string // sorted, without doubles

	// Bounds of the SQL door; 0 means none. See config.ConsumerMySQL.
	MaxSessions, MaxConnections int

	mysql mysqlVerifier
}

// In says whether the consumer belongs to a group. A nil *Consumer belongs to none.
func (c *Consumer) In(group string) bool {
	if c == nil {
		return false
	}
	_, found := slices.BinarySearch(c.Groups, group)
	return found
}

// Directory holds all consumers of one generation. A nil *Directory and the zero value know nobody. It may be read by
// many goroutines.
type Directory struct {
	consumers map[string]*Consumer
	keys      map[uint64][]apiKey // by the first bytes of their digests
}

// userBytesMax is what MySQL allows for a user name: 32 characters of at most 4 bytes. MariaDB allows 80 characters; the longer one
// serves both.
const userBytesMax = 80 * 4

// Compile makes the directory of a configuration. What no client could use, or what would let anybody in, is a problem.
func Compile(c *config.Config) (*Directory, config.Problems) {
	d := &Directory{consumers: make(map[string]*Consumer, len(c.Consumers))}
	var problems config.Problems
	for _, name := range slices.Sorted(maps.Keys(c.Consumers)) {
		from := c.Consumers[name]
		if from == nil {
			from = new(config.Consumer)
		}
		path := "consumers." + name
		groups := slices.Clone(from.Groups)
		slices.Sort(groups)
		consumer := &Consumer{Name: name, Groups: slices.Compact(groups), mysql: nobody}
		if from.MySQL != nil {
			switch {
			case from.MySQL.Password == "":
				problems = append(problems, c.Problem(path+".mysql.password",
					"empty: anybody could sign in as %s (give a password, or leave mysql out)", name))
			case len(name) > userBytesMax:
				problems = append(problems, c.Problem(path,
					"the name is too long for a MySQL user (at most %d bytes)", userBytesMax))
			default:
				consumer.mysql = newMySQLVerifier([]byte(from.MySQL.Password))
				consumer.MaxSessions, consumer.MaxConnections = from.MySQL.MaxSessions, from.MySQL.MaxConnections
			}
		}
		for i, key := range from.APIKeys {
			if p := d.addAPIKey(c, consumer, fmt.Sprintf("%s.api_keys[%d]", path, i), string(key)); p != nil {
				problems = append(problems, *p)
			}
		}
		d.consumers[name] = consumer
	}
	return d, problems
}

// Consumer gives a consumer by name.
func (d *Directory) Consumer(name string) (*Consumer, bool) {
	if d == nil {
		return nil, false
	}
	c, ok := d.consumers[name]
	return c, ok
}

// Len is the number of consumers.
func (d *Directory) Len() int {
	if d == nil {
		return 0
	}
	return len(d.consumers)
}

// MySQL gives the consumer that signs in to the SQL door under a user name, and whether there is one. The consumer is
// never nil: for a user that does not exist, or may not use the SQL door, it is a stand-in whose Verify methods do the
// same work and always refuse, so that a door needs no branch before its answer.
func (d *Directory) MySQL(user string) (c *Consumer, known bool) {
	if d != nil {
		if c := d.consumers[user]; c != nil && c.mysql.open {
			return c, true
		}
	}
	return stranger, false
}

// stranger stands in for consumers that do not exist.
var stranger = &Consumer{mysql: nobody}

// nobody refuses every proof. Its secrets are random, so that a proof is computed like any other.
var nobody = func() mysqlVerifier {
	v := newMySQLVerifier([]byte(rand.Text()))
	v.open = false
	return v
}()

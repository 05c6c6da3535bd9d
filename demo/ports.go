package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// Ports are the ports that the demo would like to have on 127.0.0.1. Zero means any free one.
type Ports struct {
	Web, SQL, Admin                           int // the gateway
	UsersA, UsersB, UsersV2, OrdersA, OrdersB int // the sample services
	Home                                      int // the landing page
	Shop, Archive                             int // the embedded instances
}

// DefaultPorts are what the README promises.
var DefaultPorts = Ports{
	Web: 8080, SQL: 13306, Admin: 9901,
	UsersA: 18081, UsersB: 18082, UsersV2: 18083, OrdersA: 18084, OrdersB: 18085,
	Home: 18080,
	Shop: 13316, Archive: 13317,
}

// Layout says where everything listens, as host:port. It is what the configuration and the landing page are made from.
type Layout struct {
	Web, SQL, Admin                           string
	UsersA, UsersB, UsersV2, OrdersA, OrdersB string
	Home                                      string
	Shop, Archive                             string
	Quiet                                     bool
	Notes                                     []string // one sentence for each port that was taken
}

// WebPort is the port of the HTTP door, for command lines.
func (l Layout) WebPort() string { return port(l.Web) }

// SQLPort is the port of the SQL door, for command lines.
func (l Layout) SQLPort() string { return port(l.SQL) }

func port(address string) string {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return p
}

// portTries bounds the search above a port that is taken, before any free port will do.
const portTries = 20

// listen opens the wanted port, or one of the next, or any. moved tells that the wanted one was taken.
func listen(wanted int) (ln net.Listener, moved bool, err error) {
	if wanted == 0 {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
		return ln, false, err
	}
	for p := wanted; p < wanted+portTries && p < 1<<16; p++ {
		ln, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err == nil {
			return ln, p != wanted, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
			return nil, false, err
		}
	}
	ln, err = net.Listen("tcp", "127.0.0.1:0")
	return ln, true, err
}

// listeners are the open sockets of everything in the demo. Those of the gateway are opened only to find out that they
// are free, and closed again just before it starts: it opens its own.
type listeners struct {
	web, sql, admin                           net.Listener
	usersA, usersB, usersV2, ordersA, ordersB net.Listener
	home                                      net.Listener
	shop, archive                             net.Listener
}

// open finds a place for everything. On an error nothing stays open.
func open(ports Ports) (ls *listeners, layout Layout, err error) {
	ls = &listeners{}
	defer func() {
		if err != nil {
			ls.close()
		}
	}()
	for _, want := range []struct {
		what    string
		port    int
		ln      *net.Listener
		address *string
	}{
		{"the HTTP door", ports.Web, &ls.web, &layout.Web},
		{"the SQL door", ports.SQL, &ls.sql, &layout.SQL},
		{"the admin address", ports.Admin, &ls.admin, &layout.Admin},
		{"users-a", ports.UsersA, &ls.usersA, &layout.UsersA},
		{"users-b", ports.UsersB, &ls.usersB, &layout.UsersB},
		{"users-v2", ports.UsersV2, &ls.usersV2, &layout.UsersV2},
		{"orders-a", ports.OrdersA, &ls.ordersA, &layout.OrdersA},
		{"orders-b", ports.OrdersB, &ls.ordersB, &layout.OrdersB},
		{"the landing page", ports.Home, &ls.home, &layout.Home},
		{"the shop instance", ports.Shop, &ls.shop, &layout.Shop},
		{"the archive instance", ports.Archive, &ls.archive, &layout.Archive},
	} {
		ln, moved, err := listen(want.port)
		if err != nil {
			return nil, Layout{}, fmt.Errorf("find a port for %s: %w", want.what, err)
		}
		*want.ln, *want.address = ln, ln.Addr().String()
		if moved {
			layout.Notes = append(layout.Notes, fmt.Sprintf("port %d is taken: %s is on %s", want.port, want.what, port(*want.address)))
		}
	}
	return ls, layout, nil
}

// release gives the gateway its three addresses.
func (l *listeners) release() {
	for _, ln := range []net.Listener{l.web, l.sql, l.admin} {
		if ln != nil {
			ln.Close()
		}
	}
}

// close closes everything; closing twice is harmless.
func (l *listeners) close() {
	l.release()
	for _, ln := range []net.Listener{l.usersA, l.usersB, l.usersV2, l.ordersA, l.ordersB, l.home, l.shop, l.archive} {
		if ln != nil {
			ln.Close()
		}
	}
}

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	sqle "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/memory"
	"github.com/dolthub/go-mysql-server/server"
	"github.com/dolthub/go-mysql-server/sql"
)

//go:embed shop.sql
var shopSQL string

//go:embed archive.sql
var archiveSQL string

// How the gateway signs in to the embedded instances (demo.yaml.tmpl says the same).
const (
	loginUser     = "menshen"
	loginPassword = "menshen-demo"
)

// Instance is an embedded MySQL-compatible server with one database, shop, in memory.
type Instance struct {
	engine   *sqle.Engine
	provider *memory.DbProvider
	server   *server.Server
	listener *tracked
	done     chan struct{} // closed when Accept has returned
}

// startInstance serves a database made by a script on a listener, which it owns from now on. Each of the settings may change how it is served.
func startInstance(ln net.Listener, script string, settings ...func(*server.Config)) (*Instance, error) {
	database := memory.NewDatabase("shop")
	database.BaseDatabase.EnablePrimaryKeyIndexes()
	provider := memory.NewDBProvider(database)
	engine := sqle.NewDefault(provider)

	users := engine.Analyzer.Catalog.MySQLDb
	editor := users.Editor()
	users.AddSuperUser(editor, loginUser, "localhost", loginPassword)
	editor.Close()

	if err := load(engine, provider, script); err != nil {
		ln.Close()
		return nil, err
	}

	t := &tracked{Listener: ln, open: map[net.Conn]struct{}{}}
	c := server.Config{Protocol: "tcp", Address: ln.Addr().String(), Listener: t}
	for _, set := range settings {
		set(&c)
	}
	s, err := server.NewServer(c, engine, sql.NewContext, memory.NewSessionBuilder(provider), nil)
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("start the embedded instance on %s: %w", ln.Addr(), err)
	}
	i := &Instance{engine: engine, provider: provider, server: s, listener: t, done: make(chan struct{})}
	go func() { // ends when Close closes the listener
		defer close(i.done)
		s.Start()
	}()
	return i, nil
}

// load runs a script of statements, each ending with a semicolon at the end of a line.
func load(engine *sqle.Engine, provider *memory.DbProvider, script string) error {
	ctx := insideContext(provider)
	for statement := range strings.SplitSeq(script, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		_, rows, _, err := engine.Query(ctx, statement)
		if err == nil {
			_, err = sql.RowIterToRows(ctx, rows)
		}
		if err != nil {
			return fmt.Errorf("load %.40q: %w", statement, err)
		}
	}
	return nil
}

// Close closes the listener and all connections, and waits until nobody uses the engine any more.
func (i *Instance) Close() error {
	i.server.Close()
	<-i.done
	i.listener.closeAll()
	i.server.SessionManager().WaitForClosedConnections()
	if err := i.engine.Close(); !errors.Is(err, context.Canceled) { // which is how it says that its threads have ended
		return err
	}
	return nil
}

// tracked remembers the open connections of a listener: the embedded server closes its listener but not its clients.
type tracked struct {
	net.Listener

	mu     sync.Mutex // guards open and closed
	open   map[net.Conn]struct{}
	closed bool
}

func (t *tracked) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &trackedConn{Conn: conn, owner: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	t.open[c] = struct{}{}
	return c, nil
}

func (t *tracked) closeAll() {
	t.mu.Lock()
	t.closed = true
	conns := make([]net.Conn, 0, len(t.open))
	for c := range t.open {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

type trackedConn struct {
	net.Conn
	owner *tracked
}

func (c *trackedConn) Close() error {
	c.owner.mu.Lock()
	delete(c.owner.open, c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

// Users reads the table of users, in the order of their ids.
func (i *Instance) Users() ([]User, error) {
	var users []User
	err := i.each("select id, name, email, city from users order by id", func(row sql.Row) {
		users = append(users, User{ID: int(row[0].(int32)), Name: row[1].(string), Email: row[2].(string), City: row[3].(string)})
	})
	return users, err
}

// Orders reads the table of orders, in the order of their ids.
func (i *Instance) Orders() ([]Order, error) {
	var orders []Order
	err := i.each("select id, user_id, item, cast(amount as char), date_format(placed, '%Y-%m-%d') from orders order by id", func(row sql.Row) {
		orders = append(orders, Order{ID: int(row[0].(int32)), UserID: int(row[1].(int32)), Item: row[2].(string),
			Amount: row[3].(string), Placed: row[4].(string)})
	})
	return orders, err
}

// each runs a query inside the engine, without a connection.
func (i *Instance) each(query string, f func(sql.Row)) error {
	ctx := insideContext(i.provider)
	_, iter, _, err := i.engine.Query(ctx, query)
	if err != nil {
		return fmt.Errorf("read the demo's data: %w", err)
	}
	rows, err := sql.RowIterToRows(ctx, iter)
	if err != nil {
		return fmt.Errorf("read the demo's data: %w", err)
	}
	for _, row := range rows {
		f(row)
	}
	return nil
}

// insideContext is a session that does not come from a connection.
func insideContext(provider *memory.DbProvider) *sql.Context {
	client := sql.Client{User: loginUser, Address: "localhost"}
	session := memory.NewSession(sql.NewBaseSessionWithClientServer("", client, 0), provider)
	ctx := sql.NewContext(context.Background(), sql.WithSession(session))
	ctx.SetCurrentDatabase("shop")
	return ctx
}

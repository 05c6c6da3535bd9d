package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"text/template"
)

// Options are what one run of the demo needs. Stdout and Stderr must not be nil.
type Options struct {
	Ports  Ports
	Quiet  bool         // no access records
	Stdout io.Writer    // what runs, and access records
	Stderr io.Writer    // ports that were taken, and the gateway's own log
	Ready  func(Layout) // called when everything serves; may be nil
}

// Run starts everything and returns when ctx is done and everything has stopped.
//
// The order: instances, services, gateway. What a part needs stands before it starts; and since deferred calls run
// backwards, the gateway drains first, while the parts behind it still answer.
func Run(ctx context.Context, o Options) (err error) {
	ls, layout, err := open(o.Ports)
	if err != nil {
		return err
	}
	defer ls.close()
	layout.Quiet = o.Quiet
	text, err := Config(layout)
	if err != nil {
		return err
	}
	closing := func(c io.Closer) { err = errors.Join(err, c.Close()) }

	shop, err := startInstance(ls.shop, shopSQL)
	if err != nil {
		return err
	}
	defer closing(shop)
	archive, err := startInstance(ls.archive, archiveSQL)
	if err != nil {
		return err
	}
	defer closing(archive)

	users, err := shop.Users()
	if err != nil {
		return err
	}
	orders, err := shop.Orders()
	if err != nil {
		return err
	}
	defer closing(startSite(ls.usersA, usersService(Identity{Service: "users", Version: "v1", Instance: "users-a"}, users)))
	defer closing(startSite(ls.usersB, usersService(Identity{Service: "users", Version: "v1", Instance: "users-b"}, users)))
	defer closing(startSite(ls.usersV2, usersService(Identity{Service: "users", Version: "v2", Instance: "users-v2"}, users)))
	defer closing(startSite(ls.ordersA, ordersService(Identity{Service: "orders", Version: "v1", Instance: "orders-a"}, orders)))
	defer closing(startSite(ls.ordersB, ordersService(Identity{Service: "orders", Version: "v1", Instance: "orders-b"}, orders)))
	defer closing(startSite(ls.home, newPage(layout, text)))

	ls.release()
	return serve(ctx, text, o, func() {
		if err := greet(o.Stdout, layout); err != nil {
			fmt.Fprintf(o.Stderr, "demo: %v\n", err)
		}
		if o.Ready != nil {
			o.Ready(layout)
		}
	})
}

//go:embed greeting.txt.tmpl
var greetingText string

var greeting = template.Must(template.New("greeting.txt").Parse(greetingText))

// greet prints what runs and what to try.
func greet(w io.Writer, layout Layout) error {
	return greeting.Execute(w, struct {
		Layout
		Commands []Command
	}{layout, Commands(layout)})
}

// Command is something to try, with a word on what it shows.
type Command struct {
	Line  string
	Shows string
}

// Commands are the five commands of the greeting and of the landing page.
func Commands(l Layout) []Command {
	mysql := "mysql -h 127.0.0.1 -P " + l.SQLPort() + " -u demo -pdemo "
	return []Command{
		{"curl -i http://" + l.Web + "/users/1", "one request: who answered, and how long the gateway took"},
		{`curl "http://` + l.Web + `/users/1?n=[1-10]"`, "ten requests: the split between v1 and v2, the balance between instances"},
		{mysql + `shop -e "select * from users"`, "the SQL door"},
		{mysql + `archive -e "select u.name, sum(o.amount) from orders o join users u on u.id = o.user_id group by u.name"`, "a second instance behind the same door"},
		{"curl http://" + l.Admin + "/api/v1/services", "what the gateway knows of its endpoints"},
	}
}

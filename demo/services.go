package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"
)

// User is what the users service answers with.
type User struct {
	ID    int    `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email,omitempty"` // v2 only
	City  string `json:"city"`
}

// Order is what the orders service answers with.
type Order struct {
	ID     int    `json:"id"`
	UserID int    `json:"user_id"`
	Item   string `json:"item"`
	Amount string `json:"amount"`
	Placed string `json:"placed"`
}

// Identity tells which instance answered: the split and the balancing become visible with curl.
type Identity struct {
	Service   string `json:"service"`
	Version   string `json:"version"`
	Instance  string `json:"instance"`
	RequestID string `json:"request_id,omitempty"`
}

// usersService answers GET /users and /users/{id}. Version v1 does not tell e-mail addresses, v2 does.
func usersService(self Identity, users []User) http.Handler {
	if self.Version == "v1" {
		shown := make([]User, len(users))
		for i, u := range users {
			u.Email = ""
			shown[i] = u
		}
		users = shown
	}
	return resource(self, "/users", "user", users, func(u User) int { return u.ID })
}

// ordersService answers GET /orders and /orders/{id}.
func ordersService(self Identity, orders []Order) http.Handler {
	return resource(self, "/orders", "order", orders, func(o Order) int { return o.ID })
}

// resource serves a list and its members as JSON, and /healthz.
func resource[T any](self Identity, path, name string, items []T, id func(T) int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, self, http.StatusOK, name+"s", items)
	})
	mux.HandleFunc("GET "+path+"/{id}", func(w http.ResponseWriter, r *http.Request) {
		wanted, err := strconv.Atoi(r.PathValue("id"))
		if err != nil {
			answer(w, r, self, http.StatusBadRequest, "error", "an id is a number")
			return
		}
		for _, item := range items {
			if id(item) == wanted {
				answer(w, r, self, http.StatusOK, name, item)
				return
			}
		}
		answer(w, r, self, http.StatusNotFound, "error", "no such "+name)
	})
	return mux
}

// answer writes one JSON line: the value under its name, then who answers.
func answer(w http.ResponseWriter, r *http.Request, self Identity, status int, name string, value any) {
	self.RequestID = r.Header.Get("X-Request-Id")
	shown, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	from, err := json.Marshal(self)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write([]byte(`{"` + name + `":` + string(shown) + `,"from":` + string(from) + "}\n"))
}

// site is a running HTTP server.
type site struct {
	server *http.Server
	done   chan struct{} // closed when Serve has returned
}

// startSite serves a handler on a listener, which it owns from now on.
func startSite(ln net.Listener, handler http.Handler) *site {
	s := &site{
		server: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 5 * time.Second,
			IdleTimeout:       2 * time.Minute,
			ErrorLog:          log.New(io.Discard, "", 0),
		},
		done: make(chan struct{}),
	}
	go func() { // ends when Close closes the listener
		defer close(s.done)
		s.server.Serve(ln)
	}()
	return s
}

// Close lets requests finish for a moment and closes the rest.
func (s *site) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.server.Close()
	}
	<-s.done
	return err
}

package wire

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// DefaultMaxMemory is the number of bytes that calls may hold if the options do not say.
	DefaultMaxMemory = 128 << 20

	// DefaultMaxUserCalls is the number of handlers that may run for one user if the options do not say.
	DefaultMaxUserCalls = 4096

	// callCost is what a call takes apart from its messages, in bytes: most of it is the stack of its handler.
	callCost = 8 << 10

	// A request is in memory as a frame, as its payload and as the handler's message, a message of a stream without the
	// second. An answer is the message's encoding and the frame.
	requestCopies, messageCopies, answerCopies = 3, 2, 2

	// largeAnswer is the length in bytes from which answers count. callCost covers shorter ones.
	largeAnswer = 4 << 10
)

// A user may hold as many bytes as are left for all others; with room for answers, twice as many. So one user alone can
// have half of the memory and two thirds with answers, two users a third each, and there is always some for the next.
// Answers have more, because otherwise requests could take all, and no handler could answer.
const (
	shareOfRequests = 1
	shareOfAnswers  = 2
)

// budget counts the bytes that the peers of a Guard make the server hold, in all and for each user.
type budget struct {
	limit    int64
	maxCalls int64 // of a user
	used     atomic.Int64

	mu    sync.Mutex
	users map[string]*user
}

// user is what a budget knows of a user who has a connection or a running handler.
type user struct {
	name     string
	accounts int // guarded by budget.mu
	used     atomic.Int64
	calls    atomic.Int64 // running handlers
}

// open returns a new account of the user.
func (b *budget) open(name string) *Account {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.users[name]
	if u == nil {
		u = &user{name: name}
		b.users[name] = u
	}
	u.accounts++
	a := &Account{budget: b, user: u}
	a.refs.Store(1)
	return a
}

// Account counts what the calls of one connection make the server hold, until its connection and all handlers of its
// calls have ended. Interceptors get it from AccountFromContext. Its methods may be called from several goroutines.
type Account struct {
	budget  *budget
	user    *user
	refs    atomic.Int64 // the connection and its running handlers
	held    atomic.Int64 // bytes
	answers atomic.Int64 // bytes of held for large answers that ttrpc has not written
}

var (
	errNoMemory = status.Error(codes.ResourceExhausted, "the server has no memory left for calls of this user")
	errTooMany  = status.Error(codes.ResourceExhausted, "too many calls of this user are running")
	errGone     = status.Error(codes.Canceled, "the caller has disconnected")
)

// reserve counts n bytes and reports whether there is room for them.
func (a *Account) reserve(n, share int64) bool {
	total, mine := a.budget.used.Add(n), a.user.used.Add(n)
	a.held.Add(n)
	if mine <= share*(a.budget.limit-total) {
		return true
	}
	a.release(n)
	return false
}

// release ends the count of n bytes; if n is negative, it counts more, whether or not there is room.
func (a *Account) release(n int64) {
	a.budget.used.Add(-n)
	a.user.used.Add(-n)
	a.held.Add(-n)
}

// unref ends the connection or a handler. The last one gives back all that is left.
func (a *Account) unref() {
	if a.refs.Add(-1) > 0 {
		return
	}
	a.release(a.held.Load())
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.user.accounts--; a.user.accounts == 0 {
		delete(b.users, a.user.name)
	}
}

// Begin counts a handler until End. It returns an error with code ResourceExhausted if too many handlers of the user
// run, those of connections that have gone included.
func (a *Account) Begin() (*Call, error) {
	for n := a.refs.Load(); ; n = a.refs.Load() {
		if n == 0 {
			return nil, errGone
		} else if a.refs.CompareAndSwap(n, n+1) {
			break
		}
	}
	c := &Call{account: a}
	if a.user.calls.Add(1) > a.budget.maxCalls {
		c.End()
		return nil, errTooMany
	}
	return c, nil
}

// Answer counts the frame of an answer with n bytes until it is written. It returns an error with code
// ResourceExhausted if there is no room.
func (a *Account) Answer(n int) error {
	if n < largeAnswer {
		return nil
	}
	if !a.reserve(int64(n)*answerCopies, shareOfAnswers) {
		return errNoMemory
	}
	a.answers.Add(int64(n) * answerCopies)
	return nil
}

// answered ends the count of an answer. Answers that ttrpc gives by itself were not counted.
func (a *Account) answered(n int64) {
	n = min(n*answerCopies, a.answers.Load())
	if n > 0 {
		a.answers.Add(-n)
		a.release(n)
	}
}

// Call is a running handler.
type Call struct {
	account *Account
	held    atomic.Int64 // bytes of account.held
}

// Reserve counts n bytes until Release or End. It returns an error with code ResourceExhausted if there is no room.
func (c *Call) Reserve(n int) error { return c.reserve(int64(n), shareOfRequests) }

// ReserveAnswer is Reserve for bytes that are sent to the caller. They have more room.
func (c *Call) ReserveAnswer(n int) error { return c.reserve(int64(n), shareOfAnswers) }

func (c *Call) reserve(n, share int64) error {
	if !c.account.reserve(n, share) {
		return errNoMemory
	}
	c.held.Add(n)
	return nil
}

// Release ends the count of n bytes.
func (c *Call) Release(n int) {
	c.held.Add(-int64(n))
	c.account.release(int64(n))
}

// End ends the count of the handler and of all that it has reserved.
func (c *Call) End() {
	c.account.release(c.held.Swap(0))
	c.account.user.calls.Add(-1)
	c.account.unref()
}

type (
	accountKey struct{}
	callKey    struct{}
)

// NewContext returns a context for the handlers of the connection whose calls a counts.
func (a *Account) NewContext(ctx context.Context) context.Context {
	return context.WithValue(ctx, accountKey{}, a)
}

// AccountFromContext returns the account of the connection, or nil if calls are not counted.
func AccountFromContext(ctx context.Context) *Account {
	a, _ := ctx.Value(accountKey{}).(*Account)
	return a
}

// NewContext returns a context for the handler that c is.
func (c *Call) NewContext(ctx context.Context) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// CallFromContext returns the running handler, or nil if calls are not counted.
func CallFromContext(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

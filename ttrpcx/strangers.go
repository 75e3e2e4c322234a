package ttrpcx

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// handshakeTimeout is how long a TLS handshake may take. IOTimeout may be shorter.
	handshakeTimeout = 5 * time.Second

	// maxHandshakeBytes is how much a peer may send before its handshake is over. crypto/tls would take 64 KiB for the
	// first message alone, and 256 KiB for the certificates.
	maxHandshakeBytes = 16 << 10

	// maxUndecoded is how much a peer may send afterwards without one byte of a message. crypto/tls would keep 64 KiB
	// of a handshake message that is not finished. A record has 16 KiB, and crypto/tls reads two at once.
	maxUndecoded = 48 << 10
)

// strangers are the connections whose TLS handshake is not over. They have a pool of their own, so that they take no
// place from peers with a certificate. A newcomer always gets in. In a full pool, it takes the place of one of the
// network that has most strangers. So a flood only hurts peers in the network that it comes from, and these only if
// their handshakes take longer than the flood takes to fill the pool.
type strangers struct {
	max   int
	slots chan struct{} // held by running handshakes, also of strangers that were dropped

	mu       sync.Mutex
	waiting  []*stranger // the oldest first
	networks map[netip.Prefix]*int
}

// stranger is a connection whose TLS handshake is not over, and later the connection below TLS.
type stranger struct {
	*net.TCPConn
	network netip.Prefix
	fellows *int // the number of strangers of the network
	heard   atomic.Bool
	known   bool // the handshake is over; set between two reads
	read    int  // bytes, since the last byte of a message
}

func newStrangers(n int) *strangers {
	return &strangers{max: n, slots: make(chan struct{}, 2*n), networks: map[netip.Prefix]*int{}}
}

// add lets a connection in. It waits for a slot if the handshakes of strangers that were dropped are slow to end.
func (p *strangers) add(conn *net.TCPConn) *stranger {
	p.slots <- struct{}{}
	n := &stranger{TCPConn: conn, network: network(conn.RemoteAddr())}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) >= p.max {
		victim := p.victim()
		p.forget(victim)
		_ = victim.Close() // which ends its handshake
	}
	if n.fellows = p.networks[n.network]; n.fellows == nil {
		n.fellows = new(int)
		p.networks[n.network] = n.fellows
	}
	*n.fellows++
	p.waiting = append(p.waiting, n)
	return n
}

// victim returns the oldest stranger of the network that has most. If one of its older half has sent nothing yet, it is
// that: a peer with a certificate starts its handshake at once. The younger half may just have had no time.
func (p *strangers) victim() *stranger {
	most := 0
	for _, n := range p.networks {
		most = max(most, *n)
	}
	of := make([]*stranger, 0, len(p.waiting))
	for _, w := range p.waiting {
		if *w.fellows == most {
			of = append(of, w)
		}
	}
	silent := slices.IndexFunc(of[:(len(of)+1)/2], func(w *stranger) bool { return !w.heard.Load() })
	return of[max(0, silent)]
}

// forget takes a stranger out. mu is held.
func (p *strangers) forget(n *stranger) (found bool) {
	i := slices.Index(p.waiting, n)
	if i < 0 {
		return false
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	if *n.fellows--; *n.fellows == 0 {
		delete(p.networks, n.network)
	}
	return true
}

// remove takes a stranger out whose handshake has ended. It returns an error if the stranger was dropped before.
func (p *strangers) remove(n *stranger) error {
	<-p.slots
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.forget(n) {
		return fmt.Errorf("dropped for a newer connection: %d TLS handshakes were not finished", p.max)
	}
	return nil
}

// Read reads from the connection. It fails after maxHandshakeBytes, or maxUndecoded when the handshake is over.
func (n *stranger) Read(b []byte) (int, error) {
	limit := maxHandshakeBytes
	if n.known {
		limit = maxUndecoded
	}
	if n.read >= limit {
		return 0, fmt.Errorf("more than %d bytes of TLS without a message", limit)
	}
	r, err := n.TCPConn.Read(b[:min(len(b), limit-n.read)])
	n.read += r
	n.heard.Store(true)
	return r, err
}

// servedTLS is a TLS connection whose handshake is over.
type servedTLS struct {
	*tls.Conn
	below *stranger
}

// Read notes when the peer has sent a message.
func (c servedTLS) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.below.read = 0
	}
	return n, err
}

// network returns what strangers are counted by: an IPv4 address, or the /64 of an IPv6 address, which is what one
// customer of a provider gets.
func network(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	p, _ := ip.WithZone("").Prefix(min(64, ip.BitLen())) // 32 or 64 bits always fit
	return p
}

package ttrpcx_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/ttrpc-starter/ttrpcx"
	"example.com/ttrpc-starter/ttrpcx/wire"
)

// records writes TLS 1.3 records that crypto/tls does not offer to write: RFC 8446, sections 5.2 and 7.
type records struct {
	t        *testing.T
	hash     func() hash.Hash
	keySize  int
	secret   []byte
	sequence uint64
}

// newRecords takes over the sending side of a connection after its handshake. keys is its key log.
func newRecords(t *testing.T, conn *tls.Conn, keys string) *records {
	t.Helper()
	r := &records{t: t}
	switch conn.ConnectionState().CipherSuite {
	case tls.TLS_AES_128_GCM_SHA256:
		r.hash, r.keySize = sha256.New, 16
	case tls.TLS_AES_256_GCM_SHA384:
		r.hash, r.keySize = sha512.New384, 32
	default: // it is chosen where the processor has no AES
		t.Skip("the standard library has no ChaCha20-Poly1305 to write records with")
	}
	_, secret, _ := strings.Cut(keys, "CLIENT_TRAFFIC_SECRET_0 ")
	fields := strings.Fields(secret)
	if len(fields) < 2 {
		t.Fatalf("no traffic secret in %q", keys)
	}
	var err error
	if r.secret, err = hex.DecodeString(fields[1]); err != nil {
		t.Fatal(err)
	}
	return r
}

// derive is HKDF-Expand-Label.
func (r *records) derive(label string, size int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(append(append(info, byte(len(label))), label...), 0)
	b, err := hkdf.Expand(r.hash, r.secret, string(info), size)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// seal returns a record with content of the type.
func (r *records) seal(kind byte, content []byte) []byte {
	block, err := aes.NewCipher(r.derive("key", r.keySize))
	if err != nil {
		r.t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		r.t.Fatal(err)
	}
	nonce := r.derive("iv", gcm.NonceSize())
	tail := nonce[len(nonce)-8:]
	binary.BigEndian.PutUint64(tail, binary.BigEndian.Uint64(tail)^r.sequence)
	r.sequence++
	plain := append(bytes.Clone(content), kind)
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(plain)+gcm.Overhead()))
	return gcm.Seal(header, nonce, plain, header)
}

// keyUpdate returns a record that asks for an answer of the same kind.
func (r *records) keyUpdate() []byte {
	b := r.seal(22, []byte{24, 0, 0, 1, 1})
	r.secret, r.sequence = r.derive("traffic upd", r.hash().Size()), 0
	return b
}

// dialRecords returns a server and a connection of a peer with a certificate.
func dialRecords(t *testing.T) (*served, *net.TCPConn, *tls.Conn, *records) {
	t.Helper()
	a := newAuthority(t)
	s := serve(t, ttrpcx.ServerOptions{
		Address: "tcp://127.0.0.1:0", TLS: a.issue("server"), ShutdownTimeout: 100 * time.Millisecond,
	})
	var keys bytes.Buffer
	config := unverified(t, a.issue("client"))
	config.KeyLogWriter = &keys
	raw := rawDial(t, s.address).(*net.TCPConn)
	_ = raw.SetReadBuffer(4 << 10)
	conn := tls.Client(raw, config)
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	return s, raw, conn, newRecords(t, conn, keys.String())
}

// TestUndecoded has a peer with a certificate that never finishes a handshake message of 64 KiB, which crypto/tls would
// keep for ever.
func TestUndecoded(t *testing.T) {
	noLeaks(t)
	_, raw, conn, r := dialRecords(t)
	const record = 16 << 10
	b := r.seal(22, append([]byte{24, 0, 0xff, 0xff}, make([]byte, record-4)...))
	for range 2 {
		b = append(b, r.seal(22, make([]byte, record))...)
	}
	if _, err := raw.Write(b); err != nil {
		t.Fatal(err)
	}
	_ = raw.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the server has not closed the connection: %v", err)
	}
}

// TestKeyUpdates has a peer with a certificate that asks for new keys again and again, and does not read the answers.
// The server's reader gets stuck in its answer, and holds a lock that closing a TLS connection waits for.
func TestKeyUpdates(t *testing.T) {
	noLeaks(t)
	s, raw, conn, r := dialRecords(t)

	// Data for a call that has ended is legal and gets no answer. It is needed because crypto/tls takes only so many
	// key updates in a row.
	call := wire.AppendFrame(nil, wire.Header{StreamID: 1, Type: wire.TypeRequest}, marshalRequest(t, "x"))
	data := wire.AppendFrame(nil, wire.Header{StreamID: 1, Type: wire.TypeData}, nil)
	if _, err := raw.Write(r.seal(23, call)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil { // the answer
		t.Fatal(err)
	}
	for stuck := false; !stuck; {
		var b []byte
		for range 100 {
			for range 8 {
				b = append(b, r.keyUpdate()...)
			}
			b = append(b, r.seal(23, data)...)
		}
		for len(b) > 0 && !stuck {
			_ = raw.SetWriteDeadline(time.Now().Add(time.Second))
			n, err := raw.Write(b)
			b = b[n:]
			stuck = n == 0 && errors.Is(err, os.ErrDeadlineExceeded) // the server does not read any more
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("write key updates: %v", err)
			}
		}
	}
	start := time.Now()
	err := s.stop()
	t.Logf("the server stops after %v: %v", time.Since(start), err)
}

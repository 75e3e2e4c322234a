package report

// japanese has what a run itself says in English: titles of contenders, and what they are. What is not here, or has
// changed since, is shown in English rather than wrongly.
var japanese = map[string]string{
	"stock ttrpc":                   "素の ttrpc",
	"stock ttrpc with heap floor":   "素の ttrpc（ヒープ下限あり）",
	"ours with heap floor":          "ours（ヒープ下限あり）",
	"ours again":                    "ours（対照）",
	"grpc-go with heap floor":       "grpc-go（ヒープ下限あり）",
	"connect-go, gRPC protocol":     "connect-go（gRPC プロトコル）",
	"raw socket":                    "生ソケット",
	"this starter's server":         "このひな形のサーバー",
	"grpc-go server, same features": "同じ機能の grpc-go サーバー",

	"The same, with a heap floor of 64 MiB in both processes.": "上と同じもので、両プロセスに 64 MiB のヒープ下限を設定しています。",
	"protoc-gen-go-ttrpc's code on ttrpc as it is, both ends on plain connections.": "protoc-gen-go-ttrpc の生成コードを、" +
		"手を加えない ttrpc で動かします。両端とも素の接続です。",
	"The same code behind ttrpcx on both ends, limits and guard at their defaults, no interceptors.": "" +
		"同じ生成コードで、両端に ttrpcx を使います。上限と検査は既定のまま、インターセプターはありません。",
	"Ours once more: how it differs from ours is noise.":    "ours をもう一度測ったもので、ours との差はノイズです。",
	"protoc-gen-go-grpc's code on grpc-go at its defaults.": "protoc-gen-go-grpc の生成コードを、既定の設定の grpc-go で動かします。",
	"protoc-gen-connect-go's code with the Connect protocol on net/http's HTTP/2, without TLS except over TLS.": "" +
		"protoc-gen-connect-go の生成コードで、net/http の HTTP/2 上の Connect プロトコルを使います。TLS の計測以外は暗号化しません。",
	"The same server; the client speaks gRPC.": "上と同じサーバーに、クライアントが gRPC で話します。",
	"protoc-gen-go-drpc's code; a connection takes one call at a time, so drpc's pool has one for each caller.": "" +
		"protoc-gen-go-drpc の生成コードです。1 接続で同時に 1 呼び出ししか扱えないため、drpc のプールが並列数だけ接続を持ちます。",
	"The standard library's net/rpc with gob; no .proto, no deadlines, no streams.": "" +
		"標準ライブラリーの net/rpc（gob）です。.proto、期限、ストリームはありません。",
	"Length-prefixed messages echoed on a connection for each caller, no calls at all: the physical limit.": "" +
		"長さを前置したメッセージを、呼び出し元ごとの接続でそのまま返します。RPC ではなく、物理的な限界を示します。",
	"A server as the starter's own: mutual TLS, peer checks, limits, logs, interceptors, drain.": "" +
		"このひな形のサーバーと同じ構成のサーバーです。相互 TLS、相手の確認、上限、ログ、インターセプター、停止時の処理待ちを備えます。",
	"The same server written with grpc-go: the same flags, logs, peer checks, mutual TLS, limits and drain.": "" +
		"同じサーバーを grpc-go で書いたものです。フラグ、ログ、相手の確認、相互 TLS、上限、停止時の処理待ちは同じです。",
}

// translated is what a run says.
func translated(en string) phrase {
	if ja, ok := japanese[en]; ok {
		return phrase{en, ja}
	}
	return verbatim(en)
}

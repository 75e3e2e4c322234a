package main

import (
	"context"
	"flag"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/emptypb"

	shopv1 "github.com/Acme/shop/gen/acme/shop/v1"
	"github.com/Acme/shop/internal/cli"
	"github.com/Acme/shop/ttrpcx"
)

var calls = map[string]func(context.Context, *ttrpcx.Client, cli.Printer) error{
	"Order": order, "Follow": follow, "Fill": fill, "Haggle": haggle, "Ring": ring,
}

// call is the method that the flags say to call.
type call string

func callFlags(flags *flag.FlagSet) *call {
	method := "Order"
	cli.ChoiceVar(flags, &method, "method", slices.Sorted(maps.Keys(calls)), "`method` to call")
	return (*call)(&method)
}

func (c *call) run(ctx context.Context, client *ttrpcx.Client, print cli.Printer) error {
	return calls[string(*c)](ctx, client, print)
}

func goods(kind shopv1.Goods_Kind) *shopv1.Goods { return &shopv1.Goods{Kind: kind} }

func order(ctx context.Context, client *ttrpcx.Client, print cli.Printer) error {
	resp, err := shopv1.CallShop(client).Order(ctx, &shopv1.OrderRequest{
		Items: []*shopv1.OrderRequest_Item{{Goods: goods(shopv1.Goods_KIND_BREAD), Number: 2}},
		Way:   &shopv1.OrderRequest_Fetch{Fetch: &emptypb.Empty{}},
	})
	if err != nil {
		return err
	}
	return print.Print(resp)
}

func follow(ctx context.Context, client *ttrpcx.Client, print cli.Printer) error {
	stream, err := shopv1.CallShop(client).Follow(ctx, &shopv1.FollowRequest{})
	if err != nil {
		return err
	}
	return cli.PrintAll(print, stream.Recv)
}

func fill(ctx context.Context, client *ttrpcx.Client, print cli.Printer) error {
	stream, err := shopv1.CallShop(client).Fill(ctx)
	if err != nil {
		return err
	}
	for _, kind := range []shopv1.Goods_Kind{shopv1.Goods_KIND_BREAD, shopv1.Goods_KIND_BOOK} {
		if err := stream.Send(&shopv1.FillRequest{Goods: goods(kind)}); err != nil {
			return err
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	return print.Print(resp)
}

func haggle(ctx context.Context, client *ttrpcx.Client, print cli.Printer) error {
	stream, err := shopv1.CallShop(client).Haggle(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&shopv1.HaggleRequest{Price: 1000}); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return cli.PrintAll(print, stream.Recv)
}

func ring(ctx context.Context, client *ttrpcx.Client, print cli.Printer) error {
	resp, err := shopv1.CallDesk(client).Ring(ctx, &shopv1.RingRequest{})
	if err != nil {
		return err
	}
	return print.Print(resp)
}

from tests.cli.world import *
from tests.cli.troubled import *
def test_probe(make_world):
    w=make_world("file"); troubled(w)
    r=w.inside(); d=r.to_dict()
    print({k:v for k,v in d.items() if k!='results'}); print(w.summary())
    for x in d['results']: print(x['id'],x['verdict'],x['action'],x['reason'][:100])
    print([f"{r.method} {r.path} {r.query}" for r in w.broker.requests])
    with w.state() as s: print([ (e.trade_id,e.outcome) for e in s.intents()])
    assert 0

"""The cost of a program is read from its text."""

import jax
import jax.numpy as jnp
import pytest

from hbt.utils import compiled, sharding

TEXT = """
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  ROOT %y = f32[]{:T(128)} parameter(1)
}

%start (p: bf16[1,4]) -> (bf16[1,4], bf16[8,4]) {
  %p = bf16[1,4]{1,0} parameter(0)
  %gather.1 = bf16[8,4]{1,0:T(8,128)(2,1)} all-gather(%p), replica_groups={{0,1,2,3,4,5,6,7}}, \
backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %c = (bf16[1,4], bf16[8,4]) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p: bf16[1,4]) -> bf16[8,4] {
  %p.1 = bf16[1,4]{1,0} parameter(0)
  ROOT %gather.2 = bf16[8,4]{1,0} all-gather(%p.1), replica_groups={{0,1,2,3,4,5,6,7}}, \
backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%body (s: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %s = (s32[]{:T(128)}, f32[8,128]{1,0}) parameter(0)
  %dot.1 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%s), kind=kOutput, calls=%add, \
metadata={op_name="jit(step)/shard_map/transpose(jvp())/while/body/dot_general"}, \
backend_config={"window_config":{"estimated_cycles":"100"}}
  %r = (f32[8,128]{1,0:T(8,128)}, /*index=1*/f32[]) all-reduce-start(%dot.1, %s), \
replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %rd = (f32[8,128]{1,0}, f32[]) all-reduce-done(%r)
  ROOT %k = (s32[], f32[8,128]{1,0}) custom-call(%s), custom_call_target="tpu_custom_call", \
metadata={op_name="jit(step)/jvp()/pallas_call"}, backend_config={"custom_call_config":{"body":\
"TUzvUk1MSVI=","cost_estimate":{"flops":"2000","transcendentals":"1024","bytes_accessed":"300"}}}
}

%condition (s: (s32[], f32[8,128])) -> pred[] {
  %s.1 = (s32[]{:T(128)}, f32[8,128]{1,0}) parameter(0)
  %twelve = s32[]{:T(128)} constant(12)
  %i = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %twelve), direction=LT
}

%cheap (x: f32[]) -> f32[] {
  ROOT %x.1 = f32[] negate(%x), backend_config={"estimated_cycles":"1"}
}

%costly (x: f32[]) -> f32[] {
  ROOT %x.2 = f32[] tanh(%x), backend_config={"estimated_cycles":"5"}
}

ENTRY %main.1 (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %begin = (bf16[1,4], bf16[8,4]) fusion(%a), kind=kCustom, calls=%start
  %next = bf16[8,4]{1,0} fusion(%begin), kind=kOutput, calls=%async_collective_fusion.1, \
metadata={op_name="jit(step)/mul"}, backend_config={"estimated_cycles":"7"}
  %loop = (s32[]{:T(128)}, /*index=1*/f32[8,128]{1,0}) while(%a), condition=%condition, body=%body
  %either = f32[] conditional(%a), branch_computations={%cheap, %costly}
  %permute = (f32[16]{0}, f32[16]{0}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%a), source_target_pairs={{0,1},{1,0}}
  %part = f32[4]{0} reduce-scatter(%a), replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %out = f32[8,128]{1,0} copy(%a), backend_config={"estimated_cycles":"30"}
}
"""


def test_a_loop_counts_as_often_as_it_runs_and_a_conditional_as_its_costliest_branch():
    cycles = compiled.read_cost(TEXT).cycles
    assert cycles == {
        'dot_general of the gradient, bf16[8,128]': 1200,
        'out, f32[8,128]': 30,
        'mul, bf16[8,4]': 7,
        'x.2, f32[]': 5,
    }
    assert next(iter(cycles)).startswith('dot_general')


def test_collectives_count_once_where_they_start_and_by_the_bytes_of_whole_arrays():
    cost = compiled.read_cost(TEXT)
    kinds = {'all-gather': 1, 'all-reduce': 12, 'collective-permute': 1, 'reduce-scatter': 1}
    assert cost.counts == kinds
    sizes = {'all-gather': 64, 'all-reduce': 12 * 4100, 'collective-permute': 64}
    assert cost.sizes == sizes | {'reduce-scatter': 8 * 16}


def test_a_kernel_takes_the_time_of_its_slowest_part():
    (kernel,) = compiled.read_cost(TEXT).kernels
    assert kernel == ('pallas_call, f32[8,128]', 2000, 1024, 300)
    assert compiled.read_cost(TEXT).kernels[kernel] == 12
    cycles = float(compiled.TRANSCENDENTAL_CYCLES)
    assert compiled.kernel_seconds(kernel, 1000.0, 300.0, cycles) == 2
    assert compiled.kernel_seconds(kernel, 2000.0, 100.0, cycles) == 3
    assert compiled.kernel_seconds(kernel, 2000.0, 300.0, cycles / 4) == 4


@pytest.mark.parametrize(
    'shape, size',
    [
        ('f32[2,3]{1,0}', 24),
        ('bf16[]', 2),
        ('(pred[3]{0}, s4[2])', 4),
        ('(token[], f8e4m3fn[5])', 5),
    ],
)
def test_the_bytes_of_a_shape_follow_from_its_type(shape, size):
    assert compiled._shape_bytes(shape) == size


@pytest.mark.parametrize(
    'groups, size',
    [
        ('{{0,1,2,3},{4,5,6,7}}', 4),
        ('[1,8]<=[8]', 8),
        ("mesh['axis_0'=2,'axis_1'=8,'axis_2'=1] {'axis_1'}", 8),
        ("mesh['axis_0'=2,'axis_1'=8] {'axis_0','axis_1'}", 16),
    ],
)
def test_the_chips_of_a_collective_are_read_however_they_are_written(groups, size):
    assert (
        compiled._group_size(f'%x), channel_id=1, replica_groups={groups}, dimensions={{0}}')
        == size
    )


def test_the_text_of_a_real_program_is_read():
    mesh = sharding.make_mesh(jax.devices()[:2])
    mapped = jax.shard_map(
        lambda x: jax.lax.psum(jnp.square(x), sharding.AXIS),
        mesh=mesh,
        in_specs=sharding.sharded(mesh).spec,
        out_specs=jax.P(),
    )
    text = jax.jit(mapped).lower(jax.ShapeDtypeStruct((8, 3), jnp.float32)).compile().as_text()
    cost = compiled.read_cost(text)
    assert cost.counts == {'all-reduce': 1} and cost.sizes == {'all-reduce': 4 * 3 * 4}

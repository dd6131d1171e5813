// SPDX-License-Identifier: MIT
//
// AArch64 Advanced SIMD: four floats. What each function means is said in scalar.h.
#pragma once
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "../inline.h"

namespace fusedvae {
namespace {

constexpr int kLanes = 4;
struct V {
    float32x4_t v;
};
struct U {
    uint32x4_t v;
};
struct M {
    uint32x4_t v;
};

FUSEDVAE_FN V set1(float x) { return {vdupq_n_f32(x)}; }
FUSEDVAE_FN V load(const float* p) { return {vld1q_f32(p)}; }
FUSEDVAE_FN void store(float* p, V a) { vst1q_f32(p, a.v); }
FUSEDVAE_FN V load_part(const float* p, int n) {
    float lanes[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
}
FUSEDVAE_FN void store_part(float* p, V a, int n) {
    float lanes[4];
    store(lanes, a);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
FUSEDVAE_FN V keep_first(V a, int n) {
    const int32_t lanes[4] = {0, 1, 2, 3};
    const uint32x4_t kept = vcltq_s32(vld1q_s32(lanes), vdupq_n_s32(n));
    return {vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a.v), kept))};
}

FUSEDVAE_FN V operator+(V a, V b) { return {vaddq_f32(a.v, b.v)}; }
FUSEDVAE_FN V operator-(V a, V b) { return {vsubq_f32(a.v, b.v)}; }
FUSEDVAE_FN V operator*(V a, V b) { return {vmulq_f32(a.v, b.v)}; }
FUSEDVAE_FN V operator/(V a, V b) { return {vdivq_f32(a.v, b.v)}; }
FUSEDVAE_FN V fma(V a, V b, V c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
FUSEDVAE_FN V fnma(V a, V b, V c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
FUSEDVAE_FN V min(V a, V b) { return {vminq_f32(a.v, b.v)}; }
FUSEDVAE_FN V max(V a, V b) { return {vmaxq_f32(a.v, b.v)}; }
FUSEDVAE_FN V sqrt(V a) { return {vsqrtq_f32(a.v)}; }
FUSEDVAE_FN V abs(V a) { return {vabsq_f32(a.v)}; }
FUSEDVAE_FN V round(V a) { return {vrndnq_f32(a.v)}; }
FUSEDVAE_FN M gt(V a, V b) { return {vcgtq_f32(a.v, b.v)}; }
FUSEDVAE_FN V select(M m, V a, V b) { return {vbslq_f32(m.v, a.v, b.v)}; }
FUSEDVAE_FN float sum(V a) {
    const float32x2_t e = vadd_f32(vget_low_f32(a.v), vget_high_f32(a.v));
    return vget_lane_f32(e, 0) + vget_lane_f32(e, 1);
}
FUSEDVAE_FN float32x4_t power2(int32x4_t e) {  // 2^e for e in [-126, 127]
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e, vdupq_n_s32(127)), 23));
}
FUSEDVAE_FN V scale2(V p, V n) {
    const int32x4_t e = vcvtq_s32_f32(n.v), half = vshrq_n_s32(e, 1);
    return {vmulq_f32(vmulq_f32(p.v, power2(half)), power2(vsubq_s32(e, half)))};
}
FUSEDVAE_FN V split_exponent(V x, V* e) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x.v);
    e->v = vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(vshrq_n_u32(bits, 23)), vdupq_n_s32(127)));
    return {vreinterpretq_f32_u32(vorrq_u32(vandq_u32(bits, vdupq_n_u32(0x007fffffu)), vdupq_n_u32(0x3f800000u)))};
}
FUSEDVAE_FN void unzip(V a, V b, V* even, V* odd) {
    even->v = vuzp1q_f32(a.v, b.v);
    odd->v = vuzp2q_f32(a.v, b.v);
}
FUSEDVAE_FN void zip(V even, V odd, V* a, V* b) {
    a->v = vzip1q_f32(even.v, odd.v);
    b->v = vzip2q_f32(even.v, odd.v);
}
FUSEDVAE_FN void store_quads(float* out, const V n[4]) {
    const float32x4x4_t all = {{n[0].v, n[1].v, n[2].v, n[3].v}};
    vst4q_f32(out, all);
}

FUSEDVAE_FN U uset1(uint32_t x) { return {vdupq_n_u32(x)}; }
FUSEDVAE_FN U uload(const uint32_t* p) { return {vld1q_u32(p)}; }
FUSEDVAE_FN U operator+(U a, U b) { return {vaddq_u32(a.v, b.v)}; }
FUSEDVAE_FN U operator^(U a, U b) { return {veorq_u32(a.v, b.v)}; }
template <int n>
FUSEDVAE_FN U shr(U a) {
    return {vshrq_n_u32(a.v, n)};
}
template <int n>
FUSEDVAE_FN U shl(U a) {
    return {vshlq_n_u32(a.v, n)};
}
FUSEDVAE_FN void mul_wide(U a, uint32_t b, U* high, U* low) {
    const uint64x2_t p = vmull_u32(vget_low_u32(a.v), vdup_n_u32(b)), q = vmull_u32(vget_high_u32(a.v), vdup_n_u32(b));
    *high = {vcombine_u32(vshrn_n_u64(p, 32), vshrn_n_u64(q, 32))};
    *low = {vcombine_u32(vmovn_u64(p), vmovn_u64(q))};
}
FUSEDVAE_FN V to_float(U a) { return {vcvtq_f32_s32(vreinterpretq_s32_u32(a.v))}; }
FUSEDVAE_FN M bit_set(U a, uint32_t bit) { return {vtstq_u32(a.v, vdupq_n_u32(bit))}; }

FUSEDVAE_FN V low_half(V words) { return {vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(words.v), 16))}; }
FUSEDVAE_FN V high_half(V words) {
    return {vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(words.v), vdupq_n_u32(0xFFFF0000u)))};
}

FUSEDVAE_FN V load_half(const uint16_t* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))}; }
FUSEDVAE_FN V load_u8(const uint8_t* p) {
    const uint32_t lanes[4] = {p[0], p[1], p[2], p[3]};
    return {vcvtq_f32_u32(vld1q_u32(lanes))};
}
FUSEDVAE_FN V load_double(const double* p) {
    return {vcombine_f32(vcvt_f32_f64(vld1q_f64(p)), vcvt_f32_f64(vld1q_f64(p + 2)))};
}

FUSEDVAE_FN void transpose8(float* out, ptrdiff_t out_ld, const float* source, ptrdiff_t source_ld) {
    for (int r = 0; r < 8; r += 4)
        for (int c = 0; c < 8; c += 4) {
            const float* s = source + r * source_ld + c;
            const float32x4x2_t ab = vtrnq_f32(vld1q_f32(s), vld1q_f32(s + source_ld));
            const float32x4x2_t cd = vtrnq_f32(vld1q_f32(s + 2 * source_ld), vld1q_f32(s + 3 * source_ld));
            float* o = out + c * out_ld + r;
            vst1q_f32(o, vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0])));
            vst1q_f32(o + out_ld, vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1])));
            vst1q_f32(o + 2 * out_ld, vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0])));
            vst1q_f32(o + 3 * out_ld, vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1])));
        }
}

}  // namespace
}  // namespace fusedvae

// The climb of dsa_analysis/climb.py, many climbs side by side: local maxima of <A, C B C^T> over orthogonal C, or of
// <A, C B C^T> + <L, C> if there is a linear term.
//
// A climb occupies one lane of every vector, and entry (i, j) of a matrix is one vector: the numbers of all lanes there.
// Lanes never meet, and every sum has one order, so a climb gives the same bits in any company, and with vectors of any
// width. A lane whose climb has ended takes the next one.
//
// climb_new_* holds a set of climbs, climb_advance runs them for a while, climb_free forgets them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64, ROWS = 4, COLUMNS = 4;  // a vector; the tile of a product, which stays in the registers
#elif defined(__AVX__)
constexpr int BYTES = 32, ROWS = 3, COLUMNS = 4;
#else
constexpr int BYTES = 16, ROWS = 3, COLUMNS = 4;
#endif

struct Job {
  virtual bool advance(double work) = 0;
  virtual ~Job() {}
};

template <class T>
class Climbs final : public Job {
  typedef T V __attribute__((vector_size(BYTES)));
  typedef decltype(V{} < V{}) Mask;
  static constexpr int LANES = BYTES / sizeof(T);
  static constexpr T EPS = std::numeric_limits<T>::epsilon(), TINY = std::numeric_limits<T>::min();

  static V all(T x) { return x - V{}; }
  static V larger(V a, V b) { return a > b ? a : b; }
  static V smaller(V a, V b) { return a < b ? a : b; }
  static V size(V a) { return a < V{} ? -a : a; }
  static V root(V a) {
    for (int l = 0; l < LANES; l++) a[l] = std::sqrt(a[l]);
    return a;
  }
  static bool any(Mask m) {
    bool found = false;
    for (int l = 0; l < LANES; l++) found |= m[l] != 0;
    return found;
  }

  // what is given
  const std::int64_t n_climbs;
  const int n, nn, h;  // h planes of rotation: coordinates (x_1 .. x_h, y_1 .. y_h), then the axis of odd n
  const T *const operators_A, *const operators_B, *const linear;  // one of ``linear`` for each A; null if there is none
  const std::int64_t *const which_A, *const which_B;
  T *const out_C, *const out_f, *const out_slope;
  const int n_steps, n_inner;
  const T tolerance;

  // the climbs under way
  std::int64_t next = 0, climb[LANES];
  int step[LANES];
  V f{}, radius{};
  V *memory, *A, *SA, *KA, *M, *SM, *KM, *C, *G, *W, *R, *D, *Z, *HD, *own, *other, *Q, *X, *Y, *U, *L, *turn;

  int partner(int i) const { return i < h ? i + h : i < 2 * h ? i - h : -1; }
  int plane(int i) const { return i < 2 * h ? i % h : h; }

  // ---- products -----------------------------------------------------------------------------------------------------

  // rows i.. and columns j.. of X Y, or of X Y^T
  template <int I, int J, bool TURNED>
  static inline __attribute__((always_inline)) void tile(V* out, const V* X, const V* Y, int n, int i, int j) {
    V sum[I][J] = {};
    for (int k = 0; k < n; k++) {
      V x[I];
      for (int a = 0; a < I; a++) x[a] = X[(i + a) * n + k];
      for (int b = 0; b < J; b++) {
        const V y = TURNED ? Y[(j + b) * n + k] : Y[k * n + j + b];
        for (int a = 0; a < I; a++) sum[a][b] += x[a] * y;
      }
    }
    for (int a = 0; a < I; a++)
      for (int b = 0; b < J; b++) out[(i + a) * n + j + b] = sum[a][b];
  }
  template <int J, bool TURNED>
  static inline void columns(V* out, const V* X, const V* Y, int n, int j) {
    int i = 0;
    for (; i + ROWS <= n; i += ROWS) tile<ROWS, J, TURNED>(out, X, Y, n, i, j);
    if (n - i == 3) tile<3, J, TURNED>(out, X, Y, n, i, j);
    if (n - i == 2) tile<2, J, TURNED>(out, X, Y, n, i, j);
    if (n - i == 1) tile<1, J, TURNED>(out, X, Y, n, i, j);
  }
  template <bool TURNED = false>
  static __attribute__((noinline)) void multiply(V* out, const V* X, const V* Y, int n) {
    int j = 0;
    for (; j + COLUMNS <= n; j += COLUMNS) columns<COLUMNS, TURNED>(out, X, Y, n, j);
    if (n - j == 3) columns<3, TURNED>(out, X, Y, n, j);
    if (n - j == 2) columns<2, TURNED>(out, X, Y, n, j);
    if (n - j == 1) columns<1, TURNED>(out, X, Y, n, j);
  }
  static V inner(const V* a, const V* b, int m) {
    V s[4] = {};
    int k = 0;
    for (; k + 4 <= m; k += 4)
      for (int u = 0; u < 4; u++) s[u] += a[k + u] * b[k + u];
    for (; k < m; k++) s[0] += a[k] * b[k];
    return (s[0] + s[1]) + (s[2] + s[3]);
  }
  void split(const V* A, V* S, V* K) const {
    for (int i = 0; i < n; i++)
      for (int j = 0; j <= i; j++) {
        const V a = A[i * n + j], b = A[j * n + i], k = (a - b) * T(.5);
        S[i * n + j] = S[j * n + i] = (a + b) * T(.5);
        K[i * n + j] = k;
        K[j * n + i] = -k;
      }
  }
  // out = X - X^T
  void skew(V* out, const V* X) const {
    for (int i = 0; i < n; i++) {
      out[i * n + i] = V{};
      for (int j = 0; j < i; j++) {
        const V x = X[i * n + j] - X[j * n + i];
        out[i * n + j] = x;
        out[j * n + i] = -x;
      }
    }
  }

  // ---- derivatives --------------------------------------------------------------------------------------------------

  V height(const V* M, const V* C) const {
    const V f = inner(A, M, nn);
    return linear ? f + inner(L, C, nn) : f;
  }

  // G = [S_A, S_M] - [K_A, K_M]; K_A has one entry in a row, for it is written in its planes
  void gradient() {
    multiply(X, SA, SM, n);
    for (int i = 0; i < 2 * h; i++) {
      const int p = partner(i);
      const V k = KA[i * n + p];
      for (int j = 0; j < n; j++) X[i * n + j] -= k * KM[p * n + j];
    }
    skew(G, X);
    if (!linear) return;
    multiply<true>(X, L, C, n);  // N; its skew part belongs to G, and turn is G of <A, M> plus its symmetric part
    for (int i = 0; i < n; i++) {
      turn[i * n + i] = X[i * n + i];
      for (int j = 0; j < i; j++) {
        const V a = X[i * n + j], b = X[j * n + i], s = (a + b) * T(.5), k = (a - b) * T(.5), g = G[i * n + j];
        turn[i * n + j] = g + s;
        turn[j * n + i] = s - g;
        G[i * n + j] = g + k;
        G[j * n + i] = -g - k;
      }
    }
  }

  // H W = [[W, S_M], S_A] - [[W, K_M], K_A] + [W, G] / 2, and (W S_N + S_N W) / 2 of a linear term
  void hessian(V* out, const V* W) {
    multiply(X, W, SM, n);
    multiply(Y, W, KM, n);
    multiply(U, W, linear ? turn : G, n);
    for (int i = 0; i < n; i++)
      for (int j = 0; j <= i; j++) {
        X[i * n + j] = X[j * n + i] = X[i * n + j] + X[j * n + i];  // [W, S_M], symmetric
        const V y = Y[i * n + j] - Y[j * n + i];                   // [W, K_M], skew
        Y[i * n + j] = y;
        Y[j * n + i] = -y;
      }
    multiply(Q, X, SA, n);
    for (int i = 0; i < n; i++) {
      V *q = Q + i * n, *u = U + i * n, *y = Y + i * n;
      for (int j = 0; j < 2 * h; j++) q[j] += u[j] * T(.5) - y[partner(j)] * KA[partner(j) * n + j];
      if (n % 2) q[n - 1] += u[n - 1] * T(.5);
    }
    skew(out, Q);
  }

  // What H does to the complex-linear and antilinear part of W between two planes, were A = M normal
  void prepare_preconditioner() {
    const int m = n - h;  // planes, the axis of odd n counted as one whose two directions are the same
    const auto S = [&](int i, int j) { return (SA[i * n + j] + SM[i * n + j]) * T(.5); };
    const auto K = [&](int i, int j) { return (KA[i * n + j] + KM[i * n + j]) * T(.5); };
    const auto x = [&](int a) { return a < h ? a : 2 * h; };
    const auto y = [&](int a) { return h + a; };
    V *power = Y, *mean = Y + n, *w = Y + 2 * n, *line = U;
    for (int i = 0; i < n; i++) {
      V sum{};
      for (int j = 0; j < n; j++) sum += S(i, j) * S(i, j) + K(i, j) * K(i, j);
      line[i] = sum;
    }
    for (int a = 0; a < m; a++) {
      power[a] = line[x(a)] + line[y(a)];
      mean[a] = (S(x(a), x(a)) + S(y(a), y(a))) * T(.5);
      w[a] = K(y(a), x(a));
    }
    const auto base = [&](int a, int b) { return (power[a] + power[b]) * T(.5) - T(2) * mean[a] * mean[b]; };
    V total{}, *extra = Y + 3 * n;
    for (int a = 0; a < m; a++)
      for (int b = 0; b < m; b++) total += base(a, b);
    if (linear) {
      const auto N = [&](int i) { return turn[i * n + i]; };
      for (int a = 0; a < m; a++) extra[a] = (N(x(a)) + N(y(a))) * T(.25);
      for (int a = 0; a < m; a++)
        for (int b = 0; b < m; b++) total += size(extra[a] + extra[b]);
    }
    const V scale = T(1) / larger(total / T(m * m), all(T(1e-30))), floor = all(T(1e-2));
    for (int a = 0; a < m; a++)
      for (int b = 0; b <= a; b++) {
        V along = base(a, b) - T(2) * w[a] * w[b], anti = base(a, b) + T(2) * w[a] * w[b];
        if (a == b) {
          const V spread = S(x(a), x(a)) - S(y(a), y(a)), s = S(y(a), x(a));
          along = power[a] - T(2) * (mean[a] * mean[a] + w[a] * w[a]) + spread * spread * T(.5) + T(2) * s * s;
        }
        if (linear) {
          along += extra[a] + extra[b];
          anti += extra[a] + extra[b];
        }
        along = T(.5) / larger(along * scale, floor);
        anti = T(.5) / larger(anti * scale, floor);
        X[a * m + b] = X[b * m + a] = along + anti;
        if (a < h) other[a * h + b] = other[b * h + a] = along - anti;
      }
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++) own[i * n + j] = X[plane(i) * m + plane(j)];
  }
  void precondition(V* Z, const V* R) const {
    for (int k = 0; k < nn; k++) Z[k] = own[k] * R[k];
    for (int a = 0; a < h; a++) {
      const V *low = R + a * n, *high = R + (a + h) * n, *o = other + a * h;
      V *z_low = Z + a * n, *z_high = Z + (a + h) * n;
      for (int b = 0; b < h; b++) {
        z_low[b] += o[b] * high[b + h];
        z_high[b + h] += o[b] * low[b];
        z_low[b + h] -= o[b] * high[b];
        z_high[b] -= o[b] * low[b + h];
      }
    }
  }

  // ---- a step -------------------------------------------------------------------------------------------------------

  // W that maximises <G, W> - <W, H W> / 2 within |W| <= radius (Steihaug); its gain and its length
  void newton_step(V radius, V precise, V& gain, V& length) {
    const V zero{}, tiny = all(TINY);
    std::memset(W, 0, sizeof(V) * nn);
    std::memcpy(R, G, sizeof(V) * nn);
    precondition(Z, R);
    std::memcpy(D, Z, sizeof(V) * nn);
    V rz = inner(R, Z, nn), dd = rz, ww{}, wd{};
    gain = zero;
    const V enough = rz * precise;
    Mask going = rz == rz;
    for (int i = 0; i < n_inner; i++) {
      hessian(HD, D);
      const V dhd = inner(D, HD, nn);
      V a = rz / (size(dhd) > tiny ? dhd : tiny);
      const Mask edge = (dhd <= zero) | (ww + T(2) * a * wd + a * a * dd >= radius * radius);
      const V to_edge = (root(wd * wd + dd * larger(radius * radius - ww, zero)) - wd) / larger(dd, tiny);
      a = edge ? to_edge : a;
      a = going ? a : zero;
      gain += a * rz - a * a * dhd * T(.5);
      ww += T(2) * a * wd + a * a * dd;
      for (int k = 0; k < nn; k++) {
        W[k] += a * D[k];
        R[k] -= a * HD[k];
      }
      precondition(Z, R);
      const V rz_new = inner(R, Z, nn);
      going = going & ~edge & (rz_new > enough);
      if (!any(going)) break;
      const V b = going ? rz_new / larger(rz, tiny) : zero;
      wd = b * (wd + a * dd);
      dd = rz_new + b * b * dd;
      rz = rz_new;
      for (int k = 0; k < nn; k++) D[k] = Z[k] + b * D[k];
    }
    length = root(larger(ww, zero));
  }

  // Q = (1 - W/2)^-1 (1 + W/2) = 2 (1 - W/2)^-1 - 1, Cayley's: orthogonal, agrees with exp(W) to second order.
  // The symmetric part of 1 - W/2 is the identity, so elimination needs no pivots.
  void cayley() {
    for (int k = 0; k < nn; k++) Q[k] = W[k] * T(-.5);
    for (int i = 0; i < n; i++) Q[i * n + i] = all(1);
    for (int k = 0; k < n; k++) {
      V* pivots = Q + k * n;
      const V pivot = T(1) / pivots[k];
      pivots[k] = all(1);
      for (int j = 0; j < n; j++) pivots[j] *= pivot;
      for (int i = 0; i < n; i++) {
        if (i == k) continue;
        V* row = Q + i * n;
        const V factor = row[k];
        row[k] = V{};
        for (int j = 0; j < n; j++) row[j] -= factor * pivots[j];
      }
    }
    for (int k = 0; k < nn; k++) Q[k] *= T(2);
    for (int i = 0; i < n; i++) Q[i * n + i] -= T(1);
  }

  // ---- lanes --------------------------------------------------------------------------------------------------------

  static T& at(V* X, int k, int lane) { return reinterpret_cast<T*>(X + k)[lane]; }

  // Give the next climbs to the lanes that have none; false if no lane has one
  bool fill() {
    Mask fresh{};
    bool busy = false;
    for (int l = 0; l < LANES; l++) {
      if (climb[l] < 0 && next < n_climbs) {
        climb[l] = next++;
        step[l] = 0;
        fresh[l] = -1;
        const T *a = operators_A + which_A[climb[l]] * nn, *b = operators_B + which_B[climb[l]] * nn;
        for (int k = 0; k < nn; k++) {
          at(A, k, l) = a[k];
          at(Y, k, l) = b[k];
          if (linear) at(L, k, l) = linear[which_A[climb[l]] * nn + k];
          at(C, k, l) = out_C[climb[l] * nn + k];
        }
      }
      busy |= climb[l] >= 0;
    }
    if (any(fresh)) {
      split(A, SA, KA);
      orthogonalise(fresh);
      multiply(X, C, Y, n);
      multiply<true>(U, X, C, n);
      for (int k = 0; k < nn; k++) M[k] = fresh ? U[k] : M[k];
      f = fresh ? height(M, C) : f;
      radius = fresh ? all(std::sqrt(T(n)) / 2) : radius;
    }
    return busy;
  }

  // C <- (3 - C C^T) C / 2, Newton-Schulz: C comes orthogonal up to single precision, and leaves so in full precision
  void orthogonalise(Mask fresh) {
    for (int i = 0; i < (sizeof(T) > 4 ? 2 : 1); i++) {
      multiply<true>(X, C, C, n);
      for (int k = 0; k < nn; k++) X[k] *= T(-.5);
      for (int k = 0; k < n; k++) X[k * n + k] += T(1.5);
      multiply(U, X, C, n);
      for (int k = 0; k < nn; k++) C[k] = fresh ? U[k] : C[k];
    }
  }

  // Write down the climbs that have ended; whether there were any
  bool harvest(V slope) {
    bool ended = false;
    for (int l = 0; l < LANES; l++) {
      if (climb[l] < 0 || !(slope[l] < tolerance || radius[l] < T(1e-10) || step[l] == n_steps)) continue;
      for (int k = 0; k < nn; k++) out_C[climb[l] * nn + k] = at(C, k, l);
      out_f[climb[l]] = f[l];
      out_slope[climb[l]] = slope[l];
      climb[l] = -1;
      radius[l] = 0;
      ended = true;
    }
    return ended;
  }

 public:
  Climbs(std::int64_t n_climbs, int n, const T* A_, const std::int64_t* which_A, const T* B_,
         const std::int64_t* which_B, const T* L_, T* C_, T* f_, T* slope_, int n_steps, int n_inner, double tolerance)
      : n_climbs(n_climbs), n(n), nn(n * n), h(n / 2), operators_A(A_), operators_B(B_), linear(L_), which_A(which_A),
        which_B(which_B), out_C(C_), out_f(f_), out_slope(slope_), n_steps(n_steps), n_inner(n_inner),
        tolerance(T(tolerance)) {
    V** const matrices[] = {&A, &SA, &KA, &M, &SM, &KM, &C, &G, &W, &R, &D, &Z, &HD, &own, &other,
                            &Q, &X, &Y, &U, &L, &turn};
    const size_t each = nn + 3 * n, count = sizeof(matrices) / sizeof(*matrices);
    memory = static_cast<V*>(::operator new(sizeof(V) * each * count, std::align_val_t(BYTES)));
    std::memset(static_cast<void*>(memory), 0, sizeof(V) * each * count);
    for (size_t m = 0; m < count; m++) *matrices[m] = memory + each * m;
    std::fill(climb, climb + LANES, -1);
  }
  ~Climbs() override { ::operator delete(memory, std::align_val_t(BYTES)); }

  // Climb on for about ``work`` multiplications of numbers; whether something is left to do
  bool advance(double work) override {
    const V slack = all(50 * EPS), zero{};
    const T widest = T(1.5) * std::sqrt(T(n));
    while (work > 0) {
      if (!fill()) return false;
      split(M, SM, KM);
      gradient();
      const V slope = root(inner(G, G, nn));
      if (harvest(slope)) continue;
      prepare_preconditioner();
      V gain, length;
      newton_step(radius, smaller(larger(slope / T(.3), all(T(1e-6))), all(T(1e-2))), gain, length);
      cayley();
      multiply(X, Q, M, n);
      multiply<true>(Y, X, Q, n);
      multiply(U, Q, C, n);
      const V f_new = height(Y, U), quality = (f_new - f + slack) / (gain + slack);
      const Mask good = quality > all(T(.05));
      const Mask eager = (quality > all(T(.75))) & (length > T(.9) * radius);
      V reach = eager ? smaller(T(2) * radius, all(widest)) : radius;
      reach = quality < all(T(.25)) ? T(.25) * smaller(radius, length) : reach;
      radius = good & (gain < slack) ? zero : reach;  // nothing left that this precision can resolve
      for (int k = 0; k < nn; k++) {
        M[k] = good ? Y[k] : M[k];
        C[k] = good ? U[k] : C[k];
      }
      f = good ? f_new : f;
      for (int l = 0; l < LANES; l++) step[l]++;
      work -= double(LANES) * nn * n * (5. * n_inner + 5);
    }
    return true;
  }
};

template <class T>
void* make(std::int64_t n_climbs, int n, const T* A, const std::int64_t* which_A, const T* B,
           const std::int64_t* which_B, const T* L, T* C, T* f, T* slope, int n_steps, int n_inner, double tolerance) {
  try {
    return static_cast<Job*>(
        new Climbs<T>(n_climbs, n, A, which_A, B, which_B, L, C, f, slope, n_steps, n_inner, tolerance));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace

extern "C" {
void* climb_new_float32(std::int64_t n_climbs, int n, const float* A, const std::int64_t* which_A, const float* B,
                        const std::int64_t* which_B, const float* L, float* C, float* f, float* slope, int n_steps,
                        int n_inner, double tolerance) {
  return make(n_climbs, n, A, which_A, B, which_B, L, C, f, slope, n_steps, n_inner, tolerance);
}
void* climb_new_float64(std::int64_t n_climbs, int n, const double* A, const std::int64_t* which_A, const double* B,
                        const std::int64_t* which_B, const double* L, double* C, double* f, double* slope, int n_steps,
                        int n_inner, double tolerance) {
  return make(n_climbs, n, A, which_A, B, which_B, L, C, f, slope, n_steps, n_inner, tolerance);
}
int climb_advance(void* job, double work) { return static_cast<Job*>(job)->advance(work); }
void climb_free(void* job) { delete static_cast<Job*>(job); }
}
